/** The operator's JSON API: its types, and one function a question. Nothing here draws. */

export type Condition = { type: string; status: string; reason: string; message: string; lastTransitionTime: string };

/** A condition that is true and should not be. */
export type Mark = { type: string; reason: string; message: string };

export type ServiceRow = {
  namespace: string;
  name: string;
  tenant: string | null;
  model: string;
  ready: string;
  servable: string;
  message: string;
  marks: Mark[];
  policy: string;
  replicas: number;
  readyReplicas: number;
  desiredReplicas: number | null;
  plannedReplicas: number | null;
  loadTokensPerS: number | null;
};

export type ServicePage = { total: number; page: number; size: number; items: ServiceRow[] };

export type Sla = {
  name: string;
  priority: string;
  targets: { name: string; value: string }[];
  availability: string | null;
  window: string | null;
};

export type ErrorBudget = { requests: number; failed: number; allowed: number; left: number; message: string };

export type Cost = { reserved: number; onDemand: number; spot: number; perHour: string; message: string };

export type Forecast = {
  trusted: boolean;
  message: string;
  forecaster: string | null;
  source: string | null;
  history: string | null;
  leadTime: string | null;
  coverage: { level: string; achieved: string; samples: number }[];
  cost: Cost | null;
};

/** Times are RFC 3339. */
export type Action = { time: string; cause: string; told: string; reason: string };

export type Finding = {
  cause: string;
  errorClass: string;
  since: string;
  evidence: string;
  next: string;
  advice: string;
  effect: string;
  done: Action[];
};

export type Health = { summary: string; note: string | null; findings: Finding[]; before: Action[] };

export type Alert = {
  fingerprint: string;
  severity: string;
  rule: string;
  state: string;
  since: string;
  message: string;
  mutedBy: string | null;
  causes: string[] | null;
};

/** What was wrong with a service when an alert last asked. */
export type Answer = {
  alert: string;
  policy: string;
  since: string;
  time: string;
  causes: { cause: string; evidence: string; advice: string }[];
};

/** Workers that an alert asks for; `message` says which and by whose word. */
export type Floor = { workers: number; until: string; message: string };

export type Rollout = {
  phase: string;
  since: string | null;
  message: string;
  step: string | null;
  stable: string | null;
  candidate: string | null;
  outputs: string | null;
  verdicts: { metric: string; verdict: string; message: string }[];
  history: { revision: string; before: string; outcome: string; reason: string; message: string; time: string }[];
};

export type Service = ServiceRow & {
  conditions: Condition[];
  health: Health;
  alerts: { total: number; items: Alert[] };
  answer: Answer | null;
  floor: Floor | null;
  rollout: Rollout | null;
  revisions: { name: string; replicas: number; readyReplicas: number }[];
  sla: Sla | null;
  errorBudget: ErrorBudget | null;
  forecast: Forecast | null;
};

/** Even steps from `startS`; null is a gap. Tokens each second. */
export type Curve = { startS: number; stepS: number; values: (number | null)[] };
export type Band = { startS: number; stepS: number; p10: number[]; p50: number[]; p80: number[]; p95: number[]; p99: number[] };
export type Step = { atS: number; replicas: number };
export type Decision = {
  atS: number;
  before: number;
  replicas: number;
  direction: string;
  reason: string;
  message: string;
};

export type Chart = {
  nowS: number;
  load: Curve | null;
  forecast: Band | null;
  planned: Step[];
  actual: Step[];
  decisions: Decision[];
};

export type Tenant = {
  name: string;
  namespaces: string[];
  services: number;
  replicas: number;
  desiredReplicas: number;
  replicaQuota: number | null;
  borrowed: string | null;
  ready: string;
  message: string;
};

export type PoolNode = { name: string; state: string; layout: string; target: string | null; message: string | null };

export type Pool = {
  name: string;
  gpus: number | null;
  capacityClass: string | null;
  price: string | null;
  layout: string | null;
  served: string | null;
  fragmentation: string | null;
  reason: string | null;
  ready: string;
  readyMessage: string;
  demandMet: string;
  demandMessage: string;
  profiles: { profile: string; slices: number; used: number; wanted: number }[];
  sharing: { strategy: string; replicas: number; gigabytes: number; shares: number; used: number }[];
  unmet: { service: string; profile: string; wanted: number; served: number }[];
  nodes: PoolNode[];
};

export type Session = { user: string | null; readOnly: boolean };

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const TOKEN = "foretide.token";
const PATIENCE_MS = 15_000;

/** The token lives as long as the tab: closing it signs out. */
export const token = {
  get: (): string | null => sessionStorage.getItem(TOKEN),
  set: (value: string): void => sessionStorage.setItem(TOKEN, value),
  clear: (): void => sessionStorage.removeItem(TOKEN),
};

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const held = token.get();
  const headers: Record<string, string> = { Accept: "application/json" };
  if (held !== null) headers.Authorization = `Bearer ${held}`;
  const late = AbortSignal.timeout(PATIENCE_MS);
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(`api/v1/${path}`, { headers, signal: signal ? AbortSignal.any([signal, late]) : late });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The operator does not answer. The page tries again by itself.");
  }
  if (answer.ok) return JSON.parse(text) as T;
  const body = parsed(text);
  throw new ApiError(answer.status, messageOf(body) ?? `The operator answered ${answer.status}.`);
}

/** Null of what is no JSON: a proxy's page, for example. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function messageOf(body: unknown): string | null {
  if (typeof body !== "object" || body === null || !("message" in body)) return null;
  return typeof body.message === "string" ? body.message : null;
}

const one = (namespace: string, name: string): string =>
  `services/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;

export type Query = { search: string; sort: string; descending: boolean; page: number };

export const api = {
  session: (signal?: AbortSignal) => get<Session>("session", signal),
  services: (query: Query, signal?: AbortSignal) => {
    const words = new URLSearchParams({ search: query.search, sort: query.sort, page: String(query.page) });
    if (query.descending) words.set("descending", "true");
    return get<ServicePage>(`services?${words}`, signal);
  },
  service: (namespace: string, name: string, signal?: AbortSignal) => get<Service>(one(namespace, name), signal),
  chart: (namespace: string, name: string, hours: number, signal?: AbortSignal) =>
    get<Chart>(`${one(namespace, name)}/chart?hours=${hours}`, signal),
  pools: (signal?: AbortSignal) => get<{ items: Pool[] }>("pools", signal),
  tenants: (signal?: AbortSignal) => get<{ items: Tenant[] }>("tenants", signal),
};
