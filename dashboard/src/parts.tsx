/** Small pieces that several pages show. */

import type { ComponentChildren } from "preact";

import { clock, moment } from "./format";
import type { Polled } from "./polling";

/** The three values of a condition, by word and shape: colour alone would not do. */
export function State({ value, title }: { value: string; title?: string }) {
  const kind = value === "True" ? "good" : value === "False" ? "bad" : "unknown";
  const mark = kind === "good" ? "●" : kind === "bad" ? "▲" : "○";
  const word = kind === "good" ? "yes" : kind === "bad" ? "no" : "unknown";
  return (
    <span class={`state ${kind}`} title={title}>
      <span aria-hidden="true">{mark}</span> {word}
    </span>
  );
}

/** What is wrong with the answer, when something is. */
export function Trouble({ polled }: { polled: Polled<unknown> }) {
  const { value, error, oldSinceS } = polled;
  if (!error && oldSinceS === null) return null;
  const shown = oldSinceS === null ? "the last answer" : `as of ${clock(oldSinceS)}`;
  return (
    <p class="trouble" role="alert">
      {error ? error.message : "The operator answers slowly."}
      {value === null ? "" : ` What you see is ${shown}.`}
    </p>
  );
}

export function Empty({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="loading" role="status">
      Loading {what}…
    </p>
  );
}

export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div class="fact">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** A time of an object (RFC 3339), as the clock of who looks says it. */
export function When({ at }: { at: string }) {
  return <time dateTime={at}>{moment(Date.parse(at) / 1000)}</time>;
}
