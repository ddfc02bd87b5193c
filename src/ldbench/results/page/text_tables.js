// A table that is shown as it is, with a column of names before its numbers.
function textTable(table, names) {
  const head = el('tr', {}, [names, ...table.columns].map((name, index) => el('th', { scope: 'col', class: index ? '' : 'name' }, name)));
  const rows = table.rows.map((row) => el('tr', {}, el('th', { scope: 'row', class: 'name' }, row.name), row.cells.map((cell) => (cell ? el('td', {}, el('span', { class: 'value' }, cell[0]), el('span', { class: 'noise' }, cell[1])) : el('td', { class: 'none' }, '–')))));
  return el('div', {}, el('h3', {}, table.title), table.notes.map((note) => el('p', { class: 'note' }, note)),
    el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': table.title }, el('table', {}, el('thead', {}, head), el('tbody', {}, rows))));
}

// The same models unguided, guided, and each at its own best guidance.
function guidance() {
  if (!DATA.guidance.length) return null;
  return el('section', { 'data-guidance': '' }, el('h2', {}, 'By guidance'), DATA.guidance.map((table) => textTable(table, 'model')));
}

// The measurements of tokenizers that predict the quality of generators, strongest first: one table for each generator.
function predictions() {
  if (!DATA.predictions.length) return null;
  return el('section', { 'data-predictions': '' }, el('h2', {}, 'What predicts generation'), DATA.predictions.map((table) => textTable(table, 'measurement')));
}
