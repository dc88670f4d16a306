/** Numbers and times as people read them. */

export function rate(tokensPerS: number | null): string {
  if (tokensPerS === null) return "–";
  if (tokensPerS >= 10_000) return `${(tokensPerS / 1000).toFixed(0)}k tok/s`;
  if (tokensPerS >= 1000) return `${(tokensPerS / 1000).toFixed(1)}k tok/s`;
  return `${tokensPerS >= 10 || tokensPerS === 0 ? tokensPerS.toFixed(0) : tokensPerS.toFixed(1)} tok/s`;
}

export function percent(share: number): string {
  const value = share * 100;
  return `${Math.abs(value) >= 10 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1)} %`;
}

export function time(atS: number): string {
  return new Date(atS * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

export function clock(atS: number): string {
  return new Date(atS * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function moment(atS: number): string {
  return new Date(atS * 1000).toLocaleString([], {
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
}

export function ago(atS: number, nowS: number): string {
  const s = Math.max(0, nowS - atS);
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  if (s < 129_600) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86_400)} d ago`;
}
