/** Asks again and again while the page is seen; keeps the last answer on screen when one fails. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError } from "./api";

/** `oldSinceS` is when the value came, once it is older than three periods. */
export type Polled<T> = { value: T | null; error: ApiError | null; oldSinceS: number | null };

const OLD_AFTER_PERIODS = 3;
const nothing = { value: null, error: null, oldSinceS: null };

/** `question` names what is asked: a new one forgets the old answer. */
export function usePolling<T>(question: string, ask: (signal: AbortSignal) => Promise<T>, everyMs: number): Polled<T> {
  const [state, setState] = useState<Polled<T> & { question: string }>({ question, ...nothing });
  const asking = useRef(ask);
  asking.current = ask;
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    let aging = 0;
    const again = async (): Promise<void> => {
      window.clearTimeout(timer);
      if (!document.hidden) {
        try {
          const value = await asking.current(stop.signal);
          if (stop.signal.aborted) return;
          setState({ question, value, error: null, oldSinceS: null });
          const cameS = Date.now() / 1000;
          window.clearTimeout(aging);
          aging = window.setTimeout(() => setState((now) => ({ ...now, oldSinceS: cameS })), OLD_AFTER_PERIODS * everyMs);
        } catch (error) {
          if (stop.signal.aborted) return;
          const told = error instanceof ApiError ? error : new ApiError(0, String(error));
          setState((before) => ({ ...(before.question === question ? before : nothing), question, error: told }));
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
      window.clearTimeout(aging);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [question, everyMs]);
  return state.question === question ? state : nothing;
}
