/** Small pieces that several pages show. */

import type { ComponentChildren } from "preact";

import type { ApiError } from "./api";
import { moment } from "./format";

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

export function Trouble({ error, stale }: { error: ApiError; stale: boolean }) {
  return (
    <p class="trouble" role="alert">
      {error.message}
      {stale ? " What you see is the last answer." : ""}
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
