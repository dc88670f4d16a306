/** All services: search, order, pages. The server does the work, so a thousand services are as quick as ten. */

import { useEffect, useState } from "preact/hooks";

import { api, type ServiceRow } from "./api";
import { rate } from "./format";
import { Empty, Loading, State, Trouble } from "./parts";
import { usePolling } from "./polling";
import { href, type Route } from "./route";

type FleetRoute = Extract<Route, { page: "fleet" }>;
const go = (route: FleetRoute): void => location.assign(href(route));

const COLUMNS = [
  { key: "name", title: "Service" },
  { key: "servable", title: "Servable" },
  { key: "replicas", title: "Workers" },
  { key: "load", title: "Load" },
  { key: "planned", title: "Planned" },
  { key: "policy", title: "Scaling" },
  { key: "tenant", title: "Tenant" },
] as const;

export function Fleet({ route }: { route: FleetRoute }) {
  const { search, sort, descending, number } = route;
  const question = href(route);
  const polled = usePolling(
    question,
    (signal) => api.services({ search, sort, descending, page: number }, signal),
    5000,
  );
  const { value, error } = polled;
  return (
    <>
      <header class="bar">
        <h1>Fleet</h1>
        <Search route={route} />
      </header>
      <Trouble polled={polled} />
      {value === null && !error && <Loading what="services" />}
      {value?.total === 0 && (
        <Empty title={search ? `No service matches “${search}”` : "No services yet"}>
          {search ? (
            <p>
              Names, namespaces, models and tenants are searched. <a href="#/">Show all</a>
            </p>
          ) : (
            <p>
              Apply an InferenceService and it appears here: <code>kubectl apply -f examples/chat</code>
            </p>
          )}
        </Empty>
      )}
      {value && value.total > 0 && (
        <>
          <div class="scroll">
            <table>
              <caption class="hidden">
                {value.total} services, page {value.page}
              </caption>
              <thead>
                <tr>
                  {COLUMNS.map((column) => (
                    <Heading key={column.key} route={route} column={column} />
                  ))}
                </tr>
              </thead>
              <tbody>
                {value.items.map((row) => (
                  <Row key={`${row.namespace}/${row.name}`} row={row} />
                ))}
              </tbody>
            </table>
          </div>
          <Pages route={{ ...route, number: value.page }} total={value.total} size={value.size} />
        </>
      )}
    </>
  );
}

function Search({ route }: { route: FleetRoute }) {
  const [text, setText] = useState(route.search);
  useEffect(() => setText(route.search), [route.search]);
  useEffect(() => {
    if (text === route.search) return;
    const timer = window.setTimeout(() => go({ ...route, search: text, number: 1 }), 250);
    return () => window.clearTimeout(timer);
  }, [text, route]);
  return (
    <label class="search">
      <span class="hidden">Search services</span>
      <input
        type="search"
        placeholder="Search name, namespace, model, tenant"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
    </label>
  );
}

function Heading({ route, column }: { route: FleetRoute; column: (typeof COLUMNS)[number] }) {
  const active = route.sort === column.key;
  const next: FleetRoute = { ...route, sort: column.key, descending: active && !route.descending, number: 1 };
  return (
    <th scope="col" aria-sort={active ? (route.descending ? "descending" : "ascending") : "none"}>
      <a href={href(next)}>
        {column.title}
        <span aria-hidden="true">{active ? (route.descending ? " ↓" : " ↑") : ""}</span>
      </a>
    </th>
  );
}

function Row({ row }: { row: ServiceRow }) {
  const address = href({ page: "service", namespace: row.namespace, name: row.name, hours: 24 });
  return (
    <tr>
      <th scope="row">
        <a href={address}>{row.name}</a>
        <small>
          {row.namespace} · {row.model}
        </small>
      </th>
      <td>
        <State value={row.servable} title={row.message} />
        {row.marks.map((one) => (
          <span key={one.type} class="mark" title={`${one.reason}: ${one.message}`}>
            <span aria-hidden="true">▲</span> {one.type}
          </span>
        ))}
      </td>
      <td>
        {row.readyReplicas}/{row.desiredReplicas ?? row.replicas}
      </td>
      <td>{rate(row.loadTokensPerS)}</td>
      <td>{row.plannedReplicas ?? "–"}</td>
      <td>{row.policy}</td>
      <td>{row.tenant ?? "–"}</td>
    </tr>
  );
}

function Pages({ route, total, size }: { route: FleetRoute; total: number; size: number }) {
  const last = Math.max(1, Math.ceil(total / size));
  const first = (route.number - 1) * size + 1;
  return (
    <nav class="pages" aria-label="Pages">
      <span>
        {first}–{Math.min(total, first + size - 1)} of {total}
      </span>
      {route.number > 1 ? <a href={href({ ...route, number: route.number - 1 })}>Previous</a> : <span class="off">Previous</span>}
      {route.number < last ? <a href={href({ ...route, number: route.number + 1 })}>Next</a> : <span class="off">Next</span>}
    </nav>
  );
}
