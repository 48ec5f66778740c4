"use strict";
// Each .filter says with data-for which list it filters: by text, and by its selects. A select with data-key compares
// with data-<key> of an item, or with its data-slices where the key is slice-<name>; one with data-sort orders the items
// by data-<value>, the largest first after a minus. A list with data-page shows so many of its items at first.
for (const bar of document.querySelectorAll(".filter")) {
  const list = document.getElementById(bar.dataset.for), page = Number(list.dataset.page || Infinity);
  let items = [...list.querySelectorAll("[data-item]")];
  const original = [...items], texts = new Map(items.map((item) => [item, item.textContent.toLowerCase()]));
  const slices = new Map(items.map((item) => [item, JSON.parse(item.dataset.slices || "{}")]));
  const input = bar.querySelector("input"), count = bar.querySelector("output"), more = list.querySelector(".more");
  const selects = [...bar.querySelectorAll("select[data-key]")], sort = bar.querySelector("select[data-sort]");
  let limit = page;
  const value = (item, key) => key.startsWith("slice-") ? slices.get(item)[key.slice(6)] : item.dataset[key];
  const update = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let fitting = 0;
    for (const item of items) {
      const fits = words.every((word) => texts.get(item).includes(word)) &&
        selects.every((select) => !select.value || value(item, select.dataset.key) === select.value);
      fitting += fits;
      item.hidden = !fits || fitting > limit;
    }
    count.textContent = `${fitting} of ${items.length}`;
    if (more) more.hidden = fitting <= limit;
  };
  const order = () => {
    const key = sort.value.replace(/^-/, ""), sign = sort.value.startsWith("-") ? -1 : 1;
    const number = (item) => Number(item.getAttribute(`data-${key}`));
    items = key ? [...original].sort((one, other) => sign * (number(one) - number(other))) : [...original];
    for (const item of items) list.insertBefore(item, more);
  };
  const again = () => { limit = page; update(); };
  input.addEventListener("input", again);
  for (const select of selects) select.addEventListener("change", again);
  if (sort) sort.addEventListener("change", () => { order(); again(); });
  if (more) more.addEventListener("click", () => { limit += 5 * page; update(); });
  update();
}
