// How far it is, and what went wrong.

import { Failure } from "./api.js";
import { label } from "./words.js";

const $ = (id) => document.getElementById(id);
const ABOUT_KEYS = ["key", "no_key"];

/** Say how far it is; `progress` is a part from 0 to 1, null where nobody knows, absent when nothing goes on. */
export function status(name, { progress, ...values } = {}) {
  label($("status"), name ? `status.${name}` : "nothing", values);
  $("progress").hidden = progress === undefined;
  if (progress == null) $("progress").removeAttribute("value");
  else $("progress").value = progress;
}

/** Say what went wrong, in our words and the server's, with a button for `retry` if that is possible. */
export function fail(error, { retry }) {
  status(null);
  if (!(error instanceof Failure)) {
    console.error(error);
    error = new Failure("page", { detail: String(error) });
  }
  if (ABOUT_KEYS.includes(error.kind)) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  if (error.kind !== "no_key") complain(error, { retry }); // that is no more than a question
}

/** Show what went wrong, whatever else goes on. */
export function complain(error, { retry } = {}) {
  const head = document.createElement("strong");
  label(head, `error.${error.kind}`);
  const more = document.createElement("p");
  if (error.detail) Object.assign(more, { textContent: error.detail, lang: "en" });
  else label(more, `error.${error.kind}.more`, error.values);
  $("error").replaceChildren(head, more);
  if (retry) {
    const button = Object.assign(document.createElement("button"), { type: "button", onclick: retry });
    label(button, "retry");
    $("error").append(button);
  }
  $("error").hidden = false;
}
