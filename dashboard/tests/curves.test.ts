import { describe, expect, it } from "vitest";

import { inWords, loadTable, workerTable } from "../src/curves";
import { ago, percent, rate } from "../src/format";
import { href, parse } from "../src/route";

describe("curves", () => {
  it("a gap of the load stays a gap, and the forecast goes on where the load ends", () => {
    const table = loadTable(
      { startS: 0, stepS: 60, values: [1, null, 3] },
      { startS: 180, stepS: 60, p10: [1, 1], p50: [2, 2], p80: [3, 3], p95: [4, 5], p99: [6, 6] },
    );
    expect(table.x).toEqual([0, 60, 120, 180, 240]);
    expect(table.load).toEqual([1, null, 3, null, null]);
    expect(table.p95).toEqual([null, null, null, 4, 5]);
  });
  it("ready workers are known until now, wanted ones further", () => {
    const table = workerTable({ nowS: 100, actual: [{ atS: 0, replicas: 1 }], planned: [{ atS: 50, replicas: 2 }, { atS: 200, replicas: 4 }] });
    expect(table.x).toEqual([0, 50, 100, 200]);
    expect(table.actual).toEqual([1, 1, 1, null]);
    expect(table.planned).toEqual([null, 2, 2, 4]);
  });
  it("says the chart in words, also without load and forecast", () => {
    const empty = { nowS: 0, load: null, forecast: null, planned: [], actual: [], decisions: [] };
    expect(inWords(empty, rate, String)).toBe("No load has been measured. There is no forecast.");
    const band = { startS: 60, stepS: 60, p10: [0, 0], p50: [1, 1], p80: [2, 2], p95: [3, 9], p99: [9, 9] };
    const full = { ...empty, load: { startS: 0, stepS: 60, values: [2, 5, null] }, forecast: band };
    expect(inWords(full, String, String)).toBe("Load now 5, most 5. Expected: at most 9 with 95 % certainty, around 120.");
  });
});

describe("addresses", () => {
  it.each(["#/", "#/?search=a%26b&sort=load&descending=true&page=3", "#/services/demo/chat?hours=72", "#/tenants", "#/pools"])(
    "%s leads back to itself",
    (hash) => expect(href(parse(hash))).toBe(hash),
  );
  it("nonsense is a page that says so, a wrong number the first page", () => {
    expect(parse("#/x/y").page).toBe("unknown");
    expect(parse("#/services/demo/50%").page).toBe("unknown");
    expect(parse("#/?page=-4")).toMatchObject({ page: "fleet", number: 1 });
    expect(parse("#/services/a/b?hours=nine")).toMatchObject({ hours: 24 });
  });
});

describe("numbers", () => {
  it("are short and keep their unit", () => {
    expect([rate(null), rate(0.5), rate(950), rate(5400), rate(54_000)]).toEqual(["–", "0.5 tok/s", "950 tok/s", "5.4k tok/s", "54k tok/s"]);
    expect([percent(0.055), percent(1), percent(0.999)]).toEqual(["5.5 %", "100 %", "100 %"]);
    expect([ago(0, 30), ago(0, 600), ago(0, 7200)]).toEqual(["30 s ago", "10 min ago", "2 h ago"]);
  });
});
