/** Asks again and again while the page is seen; keeps the last answer on screen when one fails. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError } from "./api";

export type Polled<T> = { value: T | null; error: ApiError | null };

/** `question` names what is asked: a new one forgets the old answer. */
export function usePolling<T>(question: string, ask: (signal: AbortSignal) => Promise<T>, everyMs: number): Polled<T> {
  const [state, setState] = useState<Polled<T> & { question: string }>({ question, value: null, error: null });
  const asking = useRef(ask);
  asking.current = ask;
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const again = async (): Promise<void> => {
      window.clearTimeout(timer);
      if (!document.hidden) {
        try {
          const value = await asking.current(stop.signal);
          setState({ question, value, error: null });
        } catch (error) {
          if (stop.signal.aborted) return;
          const told = error instanceof ApiError ? error : new ApiError(0, String(error));
          setState((before) => ({ question, value: before.question === question ? before.value : null, error: told }));
        }
      }
      if (!stop.signal.aborted) timer = window.setTimeout(() => void again(), everyMs);
    };
    const seen = (): void => {
      if (!document.hidden) void again();
    };
    document.addEventListener("visibilitychange", seen);
    void again();
    return () => {
      stop.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [question, everyMs]);
  return state.question === question ? state : { value: null, error: null };
}
