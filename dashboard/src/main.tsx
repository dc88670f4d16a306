/** The page: who looks, where they are, light or dark. */

import { render } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";

import { api, ApiError, token, type Session } from "./api";
import { Fleet } from "./Fleet";
import { Empty, Loading } from "./parts";
import { Pools } from "./Pools";
import { href, parse, type Route } from "./route";
import { Service } from "./Service";
import { SignIn } from "./SignIn";
import "./style.css";
import { Tenants } from "./Tenants";

function App() {
  const [route, setRoute] = useState<Route>(() => parse(location.hash));
  const [session, setSession] = useState<Session | ApiError | null>(null);
  const [scheme, toggle] = useScheme();
  const check = useCallback(() => {
    api.session().then(setSession, (error: unknown) => setSession(error instanceof ApiError ? error : null));
  }, []);
  useEffect(check, [check]);
  useEffect(() => {
    const follow = (): void => setRoute(parse(location.hash));
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => {
    document.title = route.page === "service" ? `${route.name} – Foretide` : "Foretide";
  }, [route]);

  if (session === null) return <Loading what="Foretide" />;
  if (session instanceof ApiError) {
    if (session.status === 401 || session.status === 403) return <SignIn message={session.message} onSignedIn={check} />;
    return (
      <Empty title="Foretide does not answer">
        <p>{session.message}</p>
        <button onClick={check}>Try again</button>
      </Empty>
    );
  }
  return (
    <>
      <a class="skip" href="#main" onClick={toMain}>
        To the content
      </a>
      <nav class="top" aria-label="Foretide">
        <strong>Foretide</strong>
        <a href="#/" aria-current={route.page === "tenants" || route.page === "pools" ? undefined : "page"}>
          Fleet
        </a>
        <a href="#/tenants" aria-current={route.page === "tenants" ? "page" : undefined}>
          Tenants
        </a>
        <a href="#/pools" aria-current={route.page === "pools" ? "page" : undefined}>
          GPU pools
        </a>
        <span class="gap" />
        <button onClick={toggle}>{scheme === "dark" ? "Light" : "Dark"}</button>
        {session.readOnly ? <small>read only, without sign-in</small> : <SignOut user={session.user} />}
      </nav>
      <main id="main" tabIndex={-1}>
        <Page route={route} scheme={scheme} />
      </main>
    </>
  );
}

function toMain(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function SignOut({ user }: { user: string | null }) {
  const leave = (): void => {
    token.clear();
    location.reload();
  };
  return (
    <button onClick={leave} title={user ?? undefined}>
      Sign out
    </button>
  );
}

function Page({ route, scheme }: { route: Route; scheme: string }) {
  switch (route.page) {
    case "fleet":
      return <Fleet route={route} />;
    case "service":
      return <Service route={route} scheme={scheme} />;
    case "tenants":
      return <Tenants />;
    case "pools":
      return <Pools />;
    case "unknown":
      return (
        <Empty title="No such page">
          <p>
            <a href={href({ page: "fleet", search: "", sort: "name", descending: false, number: 1 })}>To the fleet</a>
          </p>
        </Empty>
      );
  }
}

function useScheme(): [string, () => void] {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const [chosen, choose] = useState<string | null>(() => localStorage.getItem("foretide.scheme"));
  const [dark, setDark] = useState(system.matches);
  useEffect(() => {
    const follow = (event: MediaQueryListEvent): void => setDark(event.matches);
    system.addEventListener("change", follow);
    return () => system.removeEventListener("change", follow);
  }, [system]);
  const scheme = chosen ?? (dark ? "dark" : "light");
  document.documentElement.dataset.scheme = scheme;
  const toggle = (): void => {
    const next = scheme === "dark" ? "light" : "dark";
    localStorage.setItem("foretide.scheme", next);
    choose(next);
  };
  return [scheme, toggle];
}

const root = document.getElementById("app");
if (root) render(<App />, root);
