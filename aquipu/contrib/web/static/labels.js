// The field for labels: offers those that begin as was typed, and how many records carry each.

import { get } from "./api.js";
import { counted, element, isolated } from "./text.js";

const PAUSE = 120; // milliseconds without a key until the labels are asked for

export function offerLabels(input, list, chosen) {
  let asked = 0, timer = 0, at = -1;

  const close = () => {
    list.hidden = true;
    list.replaceChildren();
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    at = -1;
  };

  const mark = (number) => {
    at = number;
    [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === at)));
    const item = list.children[at];
    if (item) { input.setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); }
    else input.removeAttribute("aria-activedescendant");
  };

  const take = (label) => { input.value = ""; close(); chosen(label); };

  const show = ({ labels }) => {
    if (labels.length === 0 || document.activeElement !== input) { close(); return; }
    list.replaceChildren(...labels.map(({ label, records }, index) => {
      const item = element("li", { role: "option", id: `offer-${index}`, "aria-selected": "false" },
        isolated(label), element("span", {}, counted(records)));
      item.dataset.label = label;
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(label); });
      return item;
    }));
    at = -1;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (list.getBoundingClientRect().bottom > innerHeight) input.form.scrollIntoView({ block: "start" });
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    const number = ++asked, prefix = input.value;
    if (!prefix) { close(); return; }
    timer = setTimeout(async () => {
      try {
        const found = await get("api/labels", { prefix, limit: 12 });
        if (number === asked) show(found);
      } catch { if (number === asked) close(); } // typed out, it can be searched for all the same
    }, PAUSE);
  });

  input.addEventListener("keydown", (event) => {
    const count = list.children.length;
    if (event.key === "ArrowDown" && count) mark((at + 1) % count);
    else if (event.key === "ArrowUp" && count) mark((at - 1 + count) % count);
    else if (event.key === "Escape" && !list.hidden) close();
    else if (event.key === "Enter" && at >= 0) take(list.children[at].dataset.label);
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", () => { clearTimeout(timer); asked += 1; close(); });
}
