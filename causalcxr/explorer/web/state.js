// What is asked, and what is shown.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const live = data.mode === "live";
const controls = new Map(data.controls.map((control) => [control.name, control]));
const named = () => Object.create(null); // by attribute, whatever it is called
const state = { row: 0, film: null, given: named(), do: named(), effect: data.effects[0], pixel_noise: data.modes[0], draws: 1, seed: 0 };
let shown = null; // the answer on the page

const get = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
