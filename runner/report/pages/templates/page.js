"use strict";
// Each .filter says with data-for which list it filters: by text, and by data-group where it has a select. A list with
// data-page shows so many of its items at first.
for (const bar of document.querySelectorAll(".filter")) {
  const list = document.getElementById(bar.dataset.for), page = Number(list.dataset.page || Infinity);
  const items = [...list.querySelectorAll("[data-item]")], texts = items.map((item) => item.textContent.toLowerCase());
  const input = bar.querySelector("input"), select = bar.querySelector("select"), count = bar.querySelector("output");
  const more = list.querySelector(".more");
  let limit = page;
  const update = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean), group = select ? select.value : "";
    let fitting = 0;
    items.forEach((item, index) => {
      const fits = words.every((word) => texts[index].includes(word)) && (!group || item.dataset.group === group);
      fitting += fits;
      item.hidden = !fits || fitting > limit;
    });
    count.textContent = `${fitting} of ${items.length}`;
    if (more) more.hidden = fitting <= limit;
  };
  const again = () => { limit = page; update(); };
  input.addEventListener("input", again);
  if (select) select.addEventListener("change", again);
  if (more) more.addEventListener("click", () => { limit += 5 * page; update(); });
  update();
}
