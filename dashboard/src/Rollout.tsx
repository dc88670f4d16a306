/** How far a rollout is, what the comparison says of each metric, and how the last ones ended. */

import type { Rollout as RolloutValue } from "./api";
import { Fact, When } from "./parts";

export function Rollout({ rollout }: { rollout: RolloutValue | null }) {
  return (
    <section aria-labelledby="rollout">
      <h2 id="rollout">Rollout</h2>
      {rollout === null ? <p class="note">No rollout has been recorded.</p> : <Known rollout={rollout} />}
    </section>
  );
}

function Known({ rollout }: { rollout: RolloutValue }) {
  const { phase, since, message, step, stable, candidate, outputs, verdicts, history } = rollout;
  return (
    <>
      <dl class="facts">
        <Fact name="Phase">
          {phase} {since && <small>since <When at={since} /></small>}
        </Fact>
        {step && <Fact name="Step">{step}</Fact>}
        <Fact name="Stable revision">{stable ?? "–"}</Fact>
        {candidate && <Fact name="Candidate">{candidate}</Fact>}
      </dl>
      <p>{message}</p>
      {outputs && <p>Fixed prompts: {outputs}</p>}
      {verdicts.length > 0 && <Verdicts verdicts={verdicts} />}
      {history.length > 0 && (
        <details>
          <summary>Last rollouts ({history.length})</summary>
          <History history={history} />
        </details>
      )}
    </>
  );
}

function Verdicts({ verdicts }: Pick<RolloutValue, "verdicts">) {
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Metric</th>
            <th scope="col">Verdict</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {verdicts.map((one) => (
            <tr key={one.metric}>
              <th scope="row">{one.metric}</th>
              <td>{one.verdict}</td>
              <td>{one.message}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function History({ history }: Pick<RolloutValue, "history">) {
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Revision</th>
            <th scope="col">Ended</th>
            <th scope="col">How</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {history.map((one) => (
            <tr key={`${one.revision} ${one.time}`}>
              <th scope="row">
                {one.revision} <small>after {one.before}</small>
              </th>
              <td>
                <When at={one.time} />
              </td>
              <td>{one.outcome}</td>
              <td>
                {one.message} <small class="line">{one.reason}</small>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
