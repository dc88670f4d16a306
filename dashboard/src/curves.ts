/** Puts load, forecast and worker numbers onto the axes that the chart library draws. Pure. */

import type { Band, Chart, Curve, Step } from "./api";

type Values = (number | null)[];

export type LoadTable = { x: number[]; load: Values; p10: Values; p50: Values; p95: Values; p99: Values };
export type WorkerTable = { x: number[]; actual: Values; planned: Values };

export function loadTable(load: Curve | null, forecast: Band | null): LoadTable {
  const times = new Set<number>();
  load?.values.forEach((_, i) => times.add(load.startS + i * load.stepS));
  forecast?.p50.forEach((_, i) => times.add(forecast.startS + i * forecast.stepS));
  const x = [...times].sort((a, b) => a - b);
  const row = (start: number, step: number, values: Values): Values => {
    const at = new Map(values.map((value, i) => [start + i * step, value]));
    return x.map((time) => at.get(time) ?? null);
  };
  const expected = (name: "p10" | "p50" | "p95" | "p99"): Values =>
    forecast ? row(forecast.startS, forecast.stepS, forecast[name]) : x.map(() => null);
  return {
    x,
    load: load ? row(load.startS, load.stepS, load.values) : x.map(() => null),
    p10: expected("p10"),
    p50: expected("p50"),
    p95: expected("p95"),
    p99: expected("p99"),
  };
}

/** Steps hold until the next one; `actual` ends now, a plan may reach further. */
export function workerTable(chart: Pick<Chart, "nowS" | "actual" | "planned">): WorkerTable {
  const times = new Set<number>([...chart.actual, ...chart.planned].map((step) => step.atS));
  if (chart.actual.length > 0 || chart.planned.length > 0) times.add(chart.nowS);
  const x = [...times].sort((a, b) => a - b);
  return {
    x,
    actual: x.map((at) => (at <= chart.nowS ? held(chart.actual, at) : null)),
    planned: x.map((at) => held(chart.planned, at)),
  };
}

function held(steps: Step[], at: number): number | null {
  let found: number | null = null;
  for (const step of steps) {
    if (step.atS > at) break;
    found = step.replicas;
  }
  return found;
}

/** What a person who does not see the picture should know of it. */
export function inWords(chart: Chart, rate: (value: number) => string, time: (atS: number) => string): string {
  const known = (chart.load?.values ?? []).filter((value): value is number => value !== null);
  const last = known.at(-1);
  const parts = [last === undefined ? "No load has been measured." : `Load now ${rate(last)}, most ${rate(Math.max(...known))}.`];
  if (chart.forecast && chart.forecast.p95.length > 0) {
    const most = Math.max(...chart.forecast.p95);
    const at = chart.forecast.startS + chart.forecast.p95.indexOf(most) * chart.forecast.stepS;
    parts.push(`Expected: at most ${rate(most)} with 95 % certainty, around ${time(at)}.`);
  } else {
    parts.push("There is no forecast.");
  }
  return parts.join(" ");
}
