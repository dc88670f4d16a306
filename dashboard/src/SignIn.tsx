/** Asks for a Kubernetes token. It is sent to the operator only, which lets the API server judge it. */

import { useState } from "preact/hooks";

import { token } from "./api";

export function SignIn({ message, onSignedIn }: { message: string; onSignedIn: () => void }) {
  const [text, setText] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    if (!text.trim()) return;
    token.set(text.trim());
    onSignedIn();
  };
  return (
    <main class="signin" id="main">
      <h1>Foretide</h1>
      <form onSubmit={submit}>
        <label for="token">Kubernetes token</label>
        <input id="token" type="password" autocomplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <button type="submit">Sign in</button>
        <p role="alert" class="note">
          {message}
        </p>
        <p class="note">
          One from your cluster: <code>kubectl -n foretide-system create token foretide-viewer</code>
        </p>
      </form>
    </main>
  );
}
