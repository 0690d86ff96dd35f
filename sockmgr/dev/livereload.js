// Reloads the page when code serves that is newer than the page. Served by `sockmgr dev`.
"use strict";
(() => {
  const address = new URL("/events", document.currentScript.src);
  let events = null;

  function follow() {
    if (events !== null || document.hidden) return;
    // By the age of the page the server knows what the page has missed, without comparing clocks.
    events = new EventSource(`${address}?age=${Math.round(performance.now())}`);
    events.onmessage = () => {
      leave();
      location.reload();
    };
    events.onerror = () => {
      leave(); // by itself it would reconnect, but with the age that the page had before
      setTimeout(follow, 500);
    };
  }

  function leave() {
    if (events !== null) events.close();
    events = null;
  }

  // A browser opens few connections to one address, and a hidden page needs none.
  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
  follow();
})();
