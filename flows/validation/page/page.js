"use strict";
(() => {
  const form = document.querySelector(".controls");
  const list = document.querySelector(".cards");
  const cards = [...list.children];
  const rows = [...document.querySelectorAll(".others tbody tr")];
  const told = form.querySelector("output");
  const wanted = () => ({
    verdict: form.elements.verdict.value,
    text: form.elements.text.value.trim().toLowerCase(),
  });
  const textOf = (one) => one.dataset.text ?? one.textContent.toLowerCase();

  function filter() {
    const { verdict, text } = wanted();
    let shown = 0;
    for (const one of [...cards, ...rows]) {
      one.hidden = !((!verdict || one.dataset.verdict === verdict) && textOf(one).includes(text));
      shown += one.hidden ? 0 : 1;
    }
    told.textContent = `${shown} of ${cards.length + rows.length} pairs`;
  }

  function sort() {
    const order = form.elements.order.value;
    const sorted = [...cards];
    if (order === "name") sorted.sort((a, b) => (a.dataset.text < b.dataset.text ? -1 : 1));
    else if (order !== "") {
      const badness = new Map(cards.map((one) => [one, JSON.parse(one.dataset.values)[order] ?? -Infinity]));
      sorted.sort((a, b) => (badness.get(b) > badness.get(a) ? 1 : badness.get(b) < badness.get(a) ? -1 : 0));
    }
    list.append(...sorted);
  }

  // A link to a pair that the filter hides shows it again.
  function reveal() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.hidden) {
      form.reset();
      filter();
      target.scrollIntoView();
    }
  }

  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-label", "Input and target enlarged");
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  function enlarge(pictures) {
    const both = document.createElement("div");
    both.className = "both";
    for (const picture of pictures.querySelectorAll("img")) {
      const large = picture.cloneNode();
      large.removeAttribute("loading");
      both.append(large);
    }
    const close = document.createElement("button");
    close.textContent = "Close";
    dialog.replaceChildren(both, close);
    dialog.showModal();
  }
  for (const picture of list.querySelectorAll("img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "zoomable";
    button.title = "Enlarge";
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", () => enlarge(button.closest(".pictures")));
  }

  // Everything that is folded is printed.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  form.elements.order.addEventListener("change", sort);
  addEventListener("hashchange", reveal);
  form.hidden = false;
  filter();
})();
