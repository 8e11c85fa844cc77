"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const form = by("filters");
  const root = document.documentElement;

  // This script precedes the scenarios, so that nothing moves when they appear.
  for (const one of all(".scripted")) one.hidden = false;

  let scenarios = [];
  let at = "";

  function start() {
    scenarios = all("article.scenario").map((element) => ({
      element,
      status: element.dataset.status,
      rule: element.dataset.rule,
      text: null,
    }));
    form.addEventListener("input", later);
    form.addEventListener("change", filtered);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", reset);
    by("expand").addEventListener("click", expand);
    document.addEventListener("click", follow);
    addEventListener("hashchange", restore);
    restore();
  }

  // --- the wanted filters, in the form and in the address ---

  function asked() {
    return {
      statuses: all("input[name=status]:checked", form).map((box) => box.value),
      rule: by("rule")?.value ?? "*",
      words: by("search").value.trim(),
      around: by("around").checked,
    };
  }

  function restore() {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) {
      go(decoded(hash));
      return;
    }
    const wanted = new URLSearchParams(hash);
    const statuses = (wanted.get("status") ?? "").split(",");
    for (const box of all("input[name=status]", form)) box.checked = statuses.includes(box.value);
    if (by("rule")) by("rule").value = wanted.get("rule") ?? "*";
    if (by("rule")?.selectedIndex === -1) by("rule").value = "*";
    by("search").value = wanted.get("q") ?? "";
    by("around").checked = wanted.has("around");
    at = wanted.get("at") ?? "";
    apply();
    if (at) go(at);
  }

  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  function written() {
    const { statuses, rule, words, around } = asked();
    const state = new URLSearchParams();
    if (statuses.length) state.set("status", statuses.join(","));
    if (rule !== "*") state.set("rule", rule);
    if (words) state.set("q", words);
    if (around) state.set("around", "1");
    if (at) state.set("at", at);
    return `#${state}`;
  }

  // --- filters ---

  let waiting = 0;

  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(filtered, 150);
  }

  function filtered() {
    clearTimeout(waiting);
    at = "";
    apply();
    history.replaceState(null, "", written());
  }

  function reset(event) {
    event.preventDefault();
    clear();
    filtered();
  }

  function clear() {
    for (const box of all("input[type=checkbox]", form)) box.checked = false;
    if (by("rule")) by("rule").value = "*";
    by("search").value = "";
    apply();
  }

  function apply() {
    const { statuses, rule, words, around } = asked();
    const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
    const isActive = statuses.length > 0 || rule !== "*" || parts.length > 0;
    const isShown = (one) =>
      (!statuses.length || statuses.includes(one.status)) &&
      (rule === "*" || one.rule === rule) &&
      parts.every((part) => textOf(one).includes(part));
    const shown = scenarios.filter((one) => (one.element.hidden = !isShown(one)) === false);
    root.classList.toggle("without-prose", isActive && !around);
    for (const part of all(".part")) part.hidden = isActive && !around;
    for (const one of shown) unfold(one.element);
    say(shown.length, isActive);
  }

  function textOf(one) {
    one.text ??= one.element.textContent.toLowerCase();
    return one.text;
  }

  function unfold(element) {
    for (let part = element.closest(".part"); part?.hidden; part = part.parentElement.closest(".part")) {
      part.hidden = false;
    }
  }

  function say(count, isActive) {
    const total = scenarios.length.toLocaleString("en");
    const words = isActive ? `${count.toLocaleString("en")} of ${total} scenarios shown` : `${total} scenarios`;
    if (by("shown").textContent !== words) by("shown").textContent = words;
  }

  function expand() {
    const isPressed = by("expand").getAttribute("aria-pressed") !== "true";
    by("expand").setAttribute("aria-pressed", isPressed);
    for (const one of all("details.evidence")) one.open = isPressed;
  }

  // --- links inside of the page: the filters stay ---

  function follow(event) {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    at = decoded(link.getAttribute("href").slice(1));
    go(at);
    history.pushState(null, "", written());
  }

  function go(id) {
    const target = by(id);
    if (!target) return;
    if (target.checkVisibility?.() === false) clear();
    if (!target.hasAttribute("tabindex")) target.tabIndex = -1;
    target.focus({ preventScroll: true });
    scroll(target, 30);
  }

  // On a large page, content gets its height only near the screen. So scroll until it is stable.
  function scroll(target, frames, still = 0) {
    const before = target.getBoundingClientRect().top;
    target.scrollIntoView();
    const moved = Math.abs(target.getBoundingClientRect().top - before) > 1;
    if (frames && still < 3) requestAnimationFrame(() => scroll(target, frames - 1, moved ? 0 : still + 1));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
