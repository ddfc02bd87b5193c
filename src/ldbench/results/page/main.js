// The page: filters on top; everything below is drawn again when they change. Tables are drawn at once, and what stands
// below them later, part by part, so that neither the first look at the page nor typing waits for plots.
const MOST_CHIPS = 24; // more are folded up
const PARTS = [guidance, scatter, curves, predictions, comparisons, sheets, published];
function toggle(set, name) {
  if (set.has(name)) set.delete(name); else set.add(name);
}
function chip(text, pressed, press, lead = null) {
  const act = (event) => {
    const index = [...document.querySelectorAll('.chip')].indexOf(event.currentTarget);
    press();
    draw();
    document.querySelectorAll('.chip')[index]?.focus();
  };
  return el('button', { type: 'button', class: 'chip', 'aria-pressed': String(pressed), onclick: act }, lead, text);
}
function chips(title, names, hidden, lead = () => null) {
  if (names.length < 2) return null;
  const group = el('div', { class: 'group', role: 'group', 'aria-label': title }, names.length > MOST_CHIPS ? null : el('span', {}, title), names.map((name) => chip(name, !hidden.has(name), () => toggle(hidden, name), lead(name))));
  if (names.length <= MOST_CHIPS) return group;
  const shown = names.filter((name) => !hidden.has(name)).length;
  group.prepend(chip('all', shown === names.length, () => names.forEach((name) => (shown === names.length ? hidden.add(name) : hidden.delete(name)))));
  const keep = (event) => { if (event.target.open) state.open.add(title); else state.open.delete(title); };
  return el('details', { class: 'many', open: state.open.has(title), ontoggle: keep }, el('summary', {}, `${title}: ${shown} of ${names.length}`), group);
}
const search = el('input', { type: 'search', id: 'filter', placeholder: 'Filter models', 'aria-label': 'Filter models', oninput: (event) => { state.text = event.target.value; state.scrolled = {}; draw(); } });
const found = el('output', { for: 'filter', class: 'note' });

function controls() {
  const choose = (event) => { state.data = event.target.value; state.sort = {}; state.axes = {}; draw(); byId('choose-data').focus(); };
  const here = DATA.subjects.filter((subject) => subject.data === state.data);
  const named = (all, key) => all.filter((name) => here.some((subject) => subject[key] === name));
  const data = datasets.length < 2 ? null : el('label', { class: 'group' }, el('span', {}, 'data'), el('select', { id: 'choose-data', onchange: choose }, datasets.map((name) => el('option', { value: name, selected: name === state.data }, name))));
  const references = DATA.boards.some((board) => board.data === state.data && board.columns.some((column) => column.kind === 'reference'));
  const rest = [data, chips('tokenizer', named(tokenizers, 'tokenizer'), state.hidden.tokenizers, dot), chips('generator', named(generators, 'generator'), state.hidden.generators),
    references ? chip('chance', state.references, () => { state.references = !state.references; }) : null].filter(Boolean);
  const form = byId('controls');
  [...form.children].filter((child) => child !== search && child !== found).forEach((child) => child.remove());
  if (!search.parentNode) form.append(search, found);
  found.textContent = state.text.trim() ? `${here.filter(visible).length} of ${count(here.length, 'model')}` : '';
  form.append(...rest);
}
const slots = [tables, ...PARTS].map(() => el('div'));
let round = 0; // of drawing; what a newer one replaces is given up

function place(slot, content) {
  const held = slot.contains(document.activeElement) ? document.activeElement.id : '';
  const left = [...slot.querySelectorAll('.scroll')].map((node) => node.scrollLeft);
  slot.replaceChildren(...[content].flat().filter(Boolean));
  slot.querySelectorAll('.scroll').forEach((node, index) => {
    node.scrollLeft = left[index] ?? 0;
    node.scrollTop = state.scrolled[node.dataset.key] ?? 0;
  });
  if (held) byId(held)?.focus();
}
function draw() {
  controls();
  place(slots[0], tables());
  round += 1;
  const [mine, rest] = [round, PARTS.entries()];
  const next = () => {
    if (mine !== round) return;
    const { done, value } = rest.next();
    byId('main').setAttribute('aria-busy', String(!done));
    if (done) return;
    place(slots[value[0] + 1], value[1]());
    setTimeout(next);
  };
  byId('main').setAttribute('aria-busy', 'true');
  setTimeout(next);
}
byId('main').replaceChildren(...(DATA.boards.length ? [] : [el('p', {}, 'There are no records yet: python -m ldbench.train makes the first ones.')]), ...slots);
const THEMES = { auto: ['light', '☀ light'], light: ['dark', '☾ dark'], dark: ['auto', '◐ auto'] };
byId('theme').addEventListener('click', (event) => {
  const [next, text] = THEMES[document.documentElement.dataset.theme ?? 'auto'];
  document.documentElement.dataset.theme = next;
  event.currentTarget.textContent = text;
  event.currentTarget.setAttribute('aria-label', `Colours: ${next === 'auto' ? 'as the system' : next}`);
});
byId('controls').addEventListener('submit', (event) => event.preventDefault());
const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;
byId('summary').textContent = `${count(DATA.numRecords, 'record')} of ${count(DATA.subjects.length, 'model')} on ${datasets.join(', ') || 'nothing'}. `
  + 'A column holds what was measured alike; 1 is the best of it, ≈ within noise of the best, ¹ not over tokenizer seeds, ? noise unknown. Click a number for where it comes from.';
byId('foot').textContent = `Made ${DATA.made} by ldbench ${DATA.version}. ± is the standard deviation over seeds (their number behind it), [ ] the 95 % interval of one seed. `
  + 'Of models that are equal, one is marked beyond noise of the best in at most 5 % of columns; ¹: it holds for these trained weights, or for generators on one tokenizer.';
draw();
let across = document.documentElement.clientWidth;
window.addEventListener('resize', () => {
  if (document.documentElement.clientWidth === across) return;
  across = document.documentElement.clientWidth;
  draw();
});
