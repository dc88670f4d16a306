/** One chart: uPlot in a box that follows the width and the colour scheme, with words for who does not see it. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

type Props = {
  label: string;
  data: uPlot.AlignedData;
  series: uPlot.Series[];
  bands?: uPlot.Band[];
  nowS: number;
  unit: (value: number) => string;
  integers?: boolean;
};

const HEIGHT = 240;

export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function Plot({ label, data, series, bands, nowS, unit, integers }: Props) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const holder = box.current;
    if (!holder) return;
    const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    const options: uPlot.Options = {
      width: Math.max(280, holder.clientWidth),
      height: HEIGHT,
      series: [{ value: (_, at) => (at === null ? "–" : new Date(at * 1000).toLocaleString()) }, ...series],
      ...(bands ? { bands } : {}),
      axes: [axis, { ...axis, size: 84, values: (_, ticks) => ticks.map(unit), ...(integers ? { incrs: [1, 2, 5, 10, 20, 50, 100] } : {}) }],
      scales: { y: { range: (_, _low, high) => [0, Math.max(high * 1.1, 1)] } },
      cursor: { drag: { x: false, y: false } },
      hooks: { draw: [(plot) => drawNow(plot, nowS)] },
    };
    const plot = new uPlot(options, data, holder);
    const follow = new ResizeObserver(() => plot.setSize({ width: Math.max(280, holder.clientWidth), height: HEIGHT }));
    follow.observe(holder);
    return () => {
      follow.disconnect();
      plot.destroy();
    };
  }, [data, series, bands, nowS, unit, integers]);
  return <div class="plot" role="img" aria-label={label} ref={box} />;
}

function drawNow(plot: uPlot, nowS: number): void {
  const x = plot.valToPos(nowS, "x", true);
  if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) return;
  const pen = plot.ctx;
  pen.save();
  pen.strokeStyle = colour("dim");
  pen.setLineDash([4, 4]);
  pen.beginPath();
  pen.moveTo(x, plot.bbox.top);
  pen.lineTo(x, plot.bbox.top + plot.bbox.height);
  pen.stroke();
  pen.restore();
}
