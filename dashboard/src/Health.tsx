/** What is wrong with a service now, what was done about it, and which alerts fire, in the words of `kubectl foretide diagnose`. */

import type { ComponentChildren } from "preact";

import type { Action, Alert, Answer as AnswerValue, Finding, Health as HealthValue, Service } from "./api";
import { When } from "./parts";

export function Health({ health }: { health: HealthValue }) {
  return (
    <section aria-labelledby="health">
      <h2 id="health">Health</h2>
      <p>{sentence(health.summary)}</p>
      {health.note && <p class="note">{health.note}</p>}
      {health.findings.map((one, at) => (
        <Cause key={`${one.cause} ${at}`} finding={one} />
      ))}
      {health.before.length > 0 && (
        <details>
          <summary>Remedies for causes that are gone ({health.before.length})</summary>
          <Actions actions={health.before} />
        </details>
      )}
    </section>
  );
}

function Cause({ finding }: { finding: Finding }) {
  return (
    <article class="finding" aria-label={`Cause ${finding.cause}`}>
      <h3>
        {finding.cause} ({finding.errorClass}) <small>since <When at={finding.since} /></small>
      </h3>
      <dl>
        <Row name="Evidence">{finding.evidence}</Row>
        {finding.done.length > 0 && (
          <Row name="Done">
            <Actions actions={finding.done} />
          </Row>
        )}
        <Row name="Next">{finding.next}</Row>
        <Row name="Advice">{finding.advice}</Row>
        <Row name="Effect">{finding.effect}</Row>
      </dl>
    </article>
  );
}

/** The last one stays when its alert is over, so it says when it was found. */
export function Answer({ answer }: { answer: AnswerValue | null }) {
  if (answer === null) return null;
  return (
    <section aria-labelledby="answer">
      <h2 id="answer">Asked by an alert</h2>
      <p>
        Alert “{answer.alert}” of AlertPolicy {answer.policy}, since <When at={answer.since} />, asked what is wrong. Found{" "}
        <When at={answer.time} />:
      </p>
      {answer.causes.map((one, at) => (
        <article key={`${one.cause} ${at}`} class="finding answer" aria-label={`Found ${one.cause}`}>
          <h3>{one.cause}</h3>
          <dl>
            <Row name="Evidence">{one.evidence}</Row>
            <Row name="Advice">{one.advice}</Row>
          </dl>
        </article>
      ))}
    </section>
  );
}

function Row({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Actions({ actions }: { actions: Action[] }) {
  return (
    <ul class="actions">
      {actions.map((one, at) => (
        <li key={`${one.time} ${at}`}>
          <When at={one.time} /> {one.told} <small>{one.cause}: {one.reason}</small>
        </li>
      ))}
    </ul>
  );
}

export function Alerts({ alerts }: { alerts: Service["alerts"] }) {
  const more = alerts.total - alerts.items.length;
  return (
    <section aria-labelledby="alerts">
      <h2 id="alerts">Alerts</h2>
      {alerts.total === 0 ? (
        <p class="note">None fires.</p>
      ) : (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Alert</th>
                <th scope="col">Severity</th>
                <th scope="col">Since</th>
                <th scope="col">Why</th>
              </tr>
            </thead>
            <tbody>
              {alerts.items.map((one) => (
                <AlertRow key={one.fingerprint} alert={one} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {more > 0 && <p class="note">{more} more are not shown.</p>}
    </section>
  );
}

function AlertRow({ alert }: { alert: Alert }) {
  return (
    <tr>
      <th scope="row">
        {alert.rule} <small>{alert.state}</small>
      </th>
      <td>{alert.severity}</td>
      <td>
        <When at={alert.since} />
      </td>
      <td>
        {alert.message}
        {alert.causes && <small class="line">Likeliest cause: {alert.causes.join("; ")}</small>}
        {alert.mutedBy && <small class="line">Not told: {alert.mutedBy}</small>}
      </td>
    </tr>
  );
}

function sentence(words: string): string {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}
