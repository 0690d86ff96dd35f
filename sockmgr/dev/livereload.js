// Loads the page anew when newer code serves than the page is of. Served by `sockmgr dev`.
"use strict";
(() => {
  const address = new URL("/events", document.currentScript.src);
  let events = null;

  function follow() {
    if (events !== null || document.hidden) return;
    // How old the page is tells the server whether it has missed something. No clock is compared.
    events = new EventSource(`${address}?age=${Math.round(performance.now())}`);
    events.onmessage = () => {
      leave();
      location.reload();
    };
    events.onerror = () => {
      leave(); // it would try again by itself, but with the age of now
      setTimeout(follow, 500);
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
