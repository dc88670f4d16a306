/** All tenants: what each may use and does use. */

import { api } from "./api";
import { Empty, Loading, State, Trouble } from "./parts";
import { usePolling } from "./polling";
import { href } from "./route";

export function Tenants() {
  const polled = usePolling("tenants", (signal) => api.tenants(signal), 10_000);
  const { value, error } = polled;
  return (
    <>
      <header class="bar">
        <h1>Tenants</h1>
      </header>
      <Trouble polled={polled} />
      {value === null && !error && <Loading what="tenants" />}
      {value?.items.length === 0 && (
        <Empty title="No tenants yet">
          <p>A Tenant names its namespaces, API keys and quota. Without one, nobody may ask anything.</p>
        </Empty>
      )}
      {value && value.items.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Tenant</th>
                <th scope="col">Ready</th>
                <th scope="col">Services</th>
                <th scope="col">Workers</th>
                <th scope="col">Quota</th>
                <th scope="col">Borrowed/due</th>
              </tr>
            </thead>
            <tbody>
              {value.items.map((one) => (
                <tr key={one.name}>
                  <th scope="row">
                    <a href={href({ page: "fleet", search: one.name, sort: "name", descending: false, number: 1 })}>{one.name}</a>
                    <small>{one.namespaces.join(", ")}</small>
                  </th>
                  <td>
                    <State value={one.ready} title={one.message} />
                  </td>
                  <td>{one.services}</td>
                  <td>
                    {one.replicas} of {one.desiredReplicas} wanted
                  </td>
                  <td>{one.replicaQuota === null ? "no limit" : <Share used={one.desiredReplicas} of={one.replicaQuota} />}</td>
                  <td>{one.borrowed ?? "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Share({ used, of }: { used: number; of: number }) {
  return (
    <>
      <meter min={0} max={Math.max(of, 1)} high={of * 0.9} value={used} aria-label={`${used} of ${of} workers`} /> {used}/{of}
    </>
  );
}
