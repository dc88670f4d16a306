/** GPU pools: what each is cut into and why, who waits, and which nodes are not as planned. */

import { api, type Pool } from "./api";
import { Empty, Fact, Loading, State, Trouble } from "./parts";
import { usePolling } from "./polling";

const MOST_NODES = 50;

export function Pools() {
  const polled = usePolling("pools", (signal) => api.pools(signal), 5_000);
  const { value, error } = polled;
  return (
    <>
      <header class="bar">
        <h1>GPU pools</h1>
      </header>
      <Trouble polled={polled} />
      {value === null && !error && <Loading what="GPU pools" />}
      {value?.items.length === 0 && (
        <Empty title="No GPU pools yet">
          <p>A GPUPool names nodes whose GPUs are cut into slices as services need them.</p>
        </Empty>
      )}
      {value?.items.map((pool) => <OnePool key={pool.name} pool={pool} />)}
    </>
  );
}

function OnePool({ pool }: { pool: Pool }) {
  const paid = [pool.capacityClass, pool.price === null ? null : `${pool.price} a GPU-hour`];
  return (
    <section aria-label={`Pool ${pool.name}`}>
      <h2>{pool.name}</h2>
      <dl class="facts">
        <Fact name="GPUs">{pool.gpus ?? "–"}</Fact>
        <Fact name="Layout">{pool.layout ?? "–"}</Fact>
        <Fact name="Served">{pool.served ?? "–"}</Fact>
        <Fact name="Fragmentation">{pool.fragmentation ?? "–"}</Fact>
        <Fact name="As planned">
          <State value={pool.ready} title={pool.readyMessage} />
        </Fact>
        <Fact name="Demand met">
          <State value={pool.demandMet} title={pool.demandMessage} />
        </Fact>
        <Fact name="Paid">{paid.filter((part) => part !== null).join(", ") || "–"}</Fact>
      </dl>
      {pool.reason && <p>{pool.reason}</p>}
      {pool.ready === "False" && <p>{pool.readyMessage}</p>}
      {pool.demandMet === "False" && <p>{pool.demandMessage}</p>}
      <Slices pool={pool} />
      <Nodes pool={pool} />
    </section>
  );
}

function Slices({ pool }: { pool: Pool }) {
  const shares = pool.sharing.map((one) => ({
    profile: `${one.gigabytes} GB by ${one.strategy}`,
    slices: one.shares,
    used: one.used,
    wanted: null,
  }));
  const rows = [...pool.profiles, ...shares];
  if (rows.length === 0) return null;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Slice</th>
            <th scope="col">There</th>
            <th scope="col">Used</th>
            <th scope="col">Wanted</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((one) => (
            <tr key={one.profile}>
              <th scope="row">{one.profile}</th>
              <td>{one.slices}</td>
              <td>{one.used}</td>
              <td>{one.wanted ?? "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Nodes({ pool }: { pool: Pool }) {
  if (pool.nodes.length === 0) return null;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">State</th>
            <th scope="col">Layout</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {pool.nodes.slice(0, MOST_NODES).map((one) => (
            <tr key={one.name}>
              <th scope="row">{one.name}</th>
              <td>{one.state}</td>
              <td>
                {one.layout}
                {one.target && <small> to {one.target}</small>}
              </td>
              <td>{one.message ?? ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {pool.nodes.length > MOST_NODES && <p>{pool.nodes.length - MOST_NODES} more nodes are not shown.</p>}
    </div>
  );
}
