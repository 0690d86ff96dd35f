// Loads the page anew when newer code serves than the page is of. Served by `sockmgr dev`.
"use strict";
(() => {
  const address = new URL("/events", document.currentScript.src);
  // By the clock of now, which may have been set since the page was asked for.
  const askedAt = Date.now() - performance.now();
  let events = null;

  function follow() {
    if (events !== null || document.hidden) return;
    events = new EventSource(address);
    events.onmessage = ({data}) => {
      if (Number(data) <= askedAt) return;
      leave();
      location.reload();
    };
    events.onerror = () => {
      if (events === null || events.readyState !== EventSource.CLOSED) return; // it tries again
      leave();
      setTimeout(follow, 1000);
    };
  }

  function leave() {
    if (events !== null) events.close();
    events = null;
  }

  // A browser has few connections for one address: whoever is not seen needs none.
  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
  follow();
})();
