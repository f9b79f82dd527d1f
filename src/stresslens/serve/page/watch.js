"use strict";

const every = 2000;
const list = document.getElementById("studies");
const state = document.getElementById("state");
const token = document.getElementById("token");
let have = "";

token.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = encodeURIComponent(token.querySelector("input").value);
  document.cookie = `${token.dataset.cookie}=${given}; path=/; SameSite=Strict`;
  look();
});

async function look() {
  try {
    const answer = await fetch(`/watch/studies?have=${have}`, { cache: "no-store" });
    const told = await answer.json();
    token.hidden = answer.status !== 401;
    if (answer.status === 401) {
      state.textContent = "this server needs its token";
      return;
    }
    if (!answer.ok) throw new Error(told.error);
    if (told.html !== undefined) {
      const left = [...list.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
      list.innerHTML = told.html;
      list.querySelectorAll(".scroll").forEach((each, k) => { each.scrollLeft = left[k] || 0; });
      have = told.version;
      document.getElementById("folder").textContent = told.folder;
      document.title = `${told.folder} · stresslens`;
    }
    state.textContent = `looked at ${new Date().toLocaleTimeString()}; looks again every ${every / 1000} seconds`;
  } catch (error) {
    state.textContent = `the server does not answer (${error.message}); this page tries again`;
  }
  setTimeout(look, document.hidden ? 5 * every : every);
}

look();
