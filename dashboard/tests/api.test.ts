import { afterEach, describe, expect, it, vi } from "vitest";

import { api, ApiError } from "../src/api";

/** An operator that begins to answer, or not even that, and then is silent. */
function silent(begins: boolean): void {
  vi.stubGlobal("sessionStorage", { getItem: () => null });
  vi.stubGlobal("fetch", (_: string, { signal }: { signal: AbortSignal }) => {
    const silence = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error));
    });
    return begins ? Promise.resolve({ ok: true, text: () => silence }) : silence;
  });
}

describe("a silent operator", () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });
  it.each([false, true])("is told as one that does not answer after 15 s, also in the middle of an answer: %s", async (begins) => {
    const patience = new AbortController();
    const timeout = vi.spyOn(AbortSignal, "timeout").mockReturnValue(patience.signal);
    silent(begins);
    const asked = api.pools(new AbortController().signal);
    patience.abort();
    await expect(asked).rejects.toThrow(new ApiError(0, "The operator does not answer. The page tries again by itself."));
    expect(timeout).toHaveBeenCalledWith(15_000);
  });
  it("is no trouble to a page that was left", async () => {
    const left = new AbortController();
    silent(false);
    const asked = api.pools(left.signal);
    left.abort();
    await expect(asked).rejects.toHaveProperty("name", "AbortError");
  });
});
