/** One service: is it well, what comes, what was decided and why. */

import { useMemo } from "preact/hooks";
import uPlot from "uplot";

import { api, type Chart, type Decision, type Forecast, type Service as ServiceValue } from "./api";
import { inWords, loadTable, workerTable } from "./curves";
import { ago, moment, percent, rate, time } from "./format";
import { Alerts, Answer, Health } from "./Health";
import { Empty, Fact, Loading, State, Trouble, When } from "./parts";
import { colour, Plot } from "./Plot";
import { usePolling } from "./polling";
import { Rollout } from "./Rollout";
import { href, RANGES, type Route } from "./route";

type ServiceRoute = Extract<Route, { page: "service" }>;

export function Service({ route, scheme }: { route: ServiceRoute; scheme: string }) {
  const { namespace, name, hours } = route;
  const key = `${namespace}/${name}`;
  const service = usePolling(key, (signal) => api.service(namespace, name, signal), 5000);
  const chart = usePolling(`${key}/${hours}`, (signal) => api.chart(namespace, name, hours, signal), 10_000);
  if (service.error?.status === 404) {
    return (
      <Empty title={`No service “${key}”`}>
        <p>
          It may have been deleted. <a href="#/">Back to the fleet</a>
        </p>
      </Empty>
    );
  }
  return (
    <>
      <nav aria-label="Where you are" class="crumbs">
        <a href="#/">Fleet</a> / {namespace}
      </nav>
      <header class="bar">
        <h1>{name}</h1>
        <Ranges route={route} />
      </header>
      <Trouble polled={service} />
      {!service.value && !service.error && <Loading what={key} />}
      {service.value && (
        <>
          <Facts service={service.value} />
          <Health health={service.value.health} />
          <Alerts alerts={service.value.alerts} />
          <Answer answer={service.value.answer} />
          <Rollout rollout={service.value.rollout} />
        </>
      )}
      {!service.error && <Trouble polled={chart} />}
      {!chart.value && !chart.error && <Loading what="the charts" />}
      {chart.value && <Charts chart={chart.value} scheme={scheme} />}
      {service.value?.forecast && <ForecastFacts forecast={service.value.forecast} />}
      {chart.value && <Decisions decisions={chart.value.decisions} nowS={chart.value.nowS} />}
      {service.value && <Conditions service={service.value} />}
    </>
  );
}

function Ranges({ route }: { route: ServiceRoute }) {
  return (
    <nav class="ranges" aria-label="Range of the charts">
      {RANGES.map((hours) => (
        <a key={hours} href={href({ ...route, hours })} aria-current={hours === route.hours ? "true" : undefined}>
          {hours < 48 ? `${hours} h` : `${hours / 24} d`}
        </a>
      ))}
    </nav>
  );
}

function Facts({ service }: { service: ServiceValue }) {
  const budget = service.errorBudget;
  return (
    <dl class="facts">
      <Fact name="Servable">
        <State value={service.servable} /> <small>{service.message}</small>
      </Fact>
      <Fact name="Workers">
        {service.readyReplicas} ready of {service.desiredReplicas ?? service.replicas} wanted
      </Fact>
      {service.floor && (
        <Fact name="Asked for by an alert">
          {service.floor.workers} workers at least, until <When at={service.floor.until} /> <small>{service.floor.message}</small>
        </Fact>
      )}
      <Fact name="Load">{rate(service.loadTokensPerS)}</Fact>
      <Fact name="Scaling">{service.policy}</Fact>
      <Fact name="Error budget">
        {budget ? (
          <>
            {percent(Math.max(budget.left, 0))} left <small>{budget.message}</small>
          </>
        ) : (
          <small>no SLA with an availability</small>
        )}
      </Fact>
      <Fact name="SLA">
        {service.sla ? (
          <>
            {service.sla.name} <small>{service.sla.targets.map((one) => `${one.name} ${one.value}`).join(", ")}</small>
          </>
        ) : (
          <small>none</small>
        )}
      </Fact>
      {service.forecast?.cost && (
        <Fact name="Cost">
          {service.forecast.cost.perHour} an hour <small>{service.forecast.cost.message}</small>
        </Fact>
      )}
    </dl>
  );
}

function Charts({ chart, scheme }: { chart: Chart; scheme: string }) {
  const load = useMemo(() => loadTable(chart.load, chart.forecast), [chart]);
  const workers = useMemo(() => workerTable(chart), [chart]);
  const pens = useMemo(() => pensOf(), [scheme]);
  const loadData = useMemo(() => [load.x, load.load, load.p50, load.p95, load.p10, load.p99] as uPlot.AlignedData, [load]);
  const workerData = useMemo(() => [workers.x, workers.actual, workers.planned] as uPlot.AlignedData, [workers]);
  return (
    <>
      <section aria-labelledby="load">
        <h2 id="load">Load and forecast</h2>
        {load.x.length === 0 ? (
          <p class="note">Nothing measured in this range.</p>
        ) : (
          <Plot label={inWords(chart, rate, time)} data={loadData} series={pens.load} bands={pens.bands} nowS={chart.nowS} unit={rate} />
        )}
      </section>
      <section aria-labelledby="workers">
        <h2 id="workers">Workers: wanted and ready</h2>
        {workers.x.length === 0 ? (
          <p class="note">No decision was recorded in this range.</p>
        ) : (
          <Plot label="Workers wanted and ready over time; the decisions below say the same in words." data={workerData} series={pens.workers} nowS={chart.nowS} unit={String} integers />
        )}
      </section>
    </>
  );
}

/** Colours are read from the style sheet as it is now: called again when the scheme changes. */
function pensOf(): { load: uPlot.Series[]; workers: uPlot.Series[]; bands: uPlot.Band[] } {
  const number = (_: uPlot, value: number | null): string => (value === null ? "–" : rate(value));
  const stepped = uPlot.paths.stepped?.({ align: 1 });
  const steps = { points: { show: false }, ...(stepped ? { paths: stepped } : {}) };
  return {
    load: [
      { label: "measured", stroke: colour("ink"), width: 1.5, value: number },
      { label: "expected", stroke: colour("accent"), width: 1.5, dash: [6, 4], value: number },
      { label: "95 %", stroke: colour("accent"), width: 1, value: number },
      { label: "10 %", stroke: colour("accent"), width: 0.5, value: number },
      { label: "99 %", stroke: colour("accent"), width: 0.5, dash: [2, 3], value: number },
    ],
    bands: [{ series: [3, 4], fill: colour("band") }],
    workers: [
      { label: "ready", stroke: colour("ink"), width: 2, ...steps },
      { label: "wanted", stroke: colour("accent"), width: 1.5, dash: [6, 4], ...steps },
    ],
  };
}

function ForecastFacts({ forecast }: { forecast: Forecast }) {
  return (
    <section aria-labelledby="forecast">
      <h2 id="forecast">Forecast</h2>
      <dl class="facts">
        <Fact name="Trusted">
          <State value={forecast.trusted ? "True" : "False"} /> <small>{forecast.message}</small>
        </Fact>
        <Fact name="Made by">{forecast.forecaster ?? "–"}</Fact>
        <Fact name="History">
          {forecast.history ?? "–"} <small>{forecast.source}</small>
        </Fact>
        <Fact name="Looks ahead">{forecast.leadTime ?? "–"}</Fact>
        {forecast.coverage.map((one) => (
          <Fact key={one.level} name={`Within ${one.level}`}>
            {one.samples === 0 ? "–" : one.achieved} <small>of {one.samples} forecasts</small>
          </Fact>
        ))}
      </dl>
    </section>
  );
}

function Decisions({ decisions, nowS }: { decisions: Decision[]; nowS: number }) {
  return (
    <section aria-labelledby="decisions">
      <h2 id="decisions">Decisions</h2>
      {decisions.length === 0 && <p class="note">No decision changed the number of workers in this range.</p>}
      <ol class="decisions" reversed>
        {decisions.map((one) => (
          <li key={one.atS}>
            <time dateTime={new Date(one.atS * 1000).toISOString()} title={moment(one.atS)}>
              {ago(one.atS, nowS)}
            </time>
            <strong>
              {one.before} → {one.replicas}
            </strong>
            <span>{one.message}</span>
            <small>{one.reason}</small>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Conditions({ service }: { service: ServiceValue }) {
  return (
    <section aria-labelledby="conditions">
      <h2 id="conditions">Conditions</h2>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Condition</th>
              <th scope="col">Holds</th>
              <th scope="col">Why</th>
            </tr>
          </thead>
          <tbody>
            {service.conditions.map((one) => (
              <tr key={one.type}>
                <th scope="row">{one.type}</th>
                <td>{one.status}</td>
                <td>
                  {one.reason} <small>{one.message}</small>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
