/** Addresses within the page: what follows `#/`. A reload and a copied link show the same. */

export type Route =
  | { page: "fleet"; search: string; sort: string; descending: boolean; number: number }
  | { page: "service"; namespace: string; name: string; hours: number }
  | { page: "tenants" }
  | { page: "pools" }
  | { page: "unknown"; path: string };

export const RANGES = [6, 24, 72, 168] as const;

export function parse(hash: string): Route {
  const [path = "", words = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  const query = new URLSearchParams(words);
  const parts = decoded(path.split("/").filter((part) => part !== ""));
  if (parts === null) return { page: "unknown", path };
  if (parts.length === 0) {
    return {
      page: "fleet",
      search: query.get("search") ?? "",
      sort: query.get("sort") ?? "name",
      descending: query.get("descending") === "true",
      number: Math.max(1, Number.parseInt(query.get("page") ?? "1", 10) || 1),
    };
  }
  if (parts[0] === "services" && parts.length === 3) {
    const hours = Number(query.get("hours"));
    const known = RANGES.find((range) => range === hours) ?? 24;
    return { page: "service", namespace: parts[1] ?? "", name: parts[2] ?? "", hours: known };
  }
  if (parts[0] === "tenants" && parts.length === 1) return { page: "tenants" };
  if (parts[0] === "pools" && parts.length === 1) return { page: "pools" };
  return { page: "unknown", path };
}

/** null where a link was cut or mistyped within a `%` and its digits, at which the decoder throws. */
function decoded(parts: string[]): string[] | null {
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return null;
  }
}

export function href(route: Route): string {
  switch (route.page) {
    case "fleet": {
      const words = new URLSearchParams();
      if (route.search) words.set("search", route.search);
      if (route.sort !== "name") words.set("sort", route.sort);
      if (route.descending) words.set("descending", "true");
      if (route.number > 1) words.set("page", String(route.number));
      const text = words.toString();
      return text ? `#/?${text}` : "#/";
    }
    case "service": {
      const path = `#/services/${encodeURIComponent(route.namespace)}/${encodeURIComponent(route.name)}`;
      return route.hours === 24 ? path : `${path}?hours=${route.hours}`;
    }
    case "tenants":
      return "#/tenants";
    case "pools":
      return "#/pools";
    case "unknown":
      return `#/${route.path}`;
  }
}
