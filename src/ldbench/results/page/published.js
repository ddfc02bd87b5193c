// Tables of papers, separate: in their order, without ranks.
function published() {
  if (!DATA.published.length) return null;
  const tables = [...DATA.published].sort((a, b) => (b.data === state.data) - (a.data === state.data));
  const one = (table) => {
    const cells = (row) => table.metrics.map((metric) => el('td', {}, row.texts[metric] ?? '–'));
    const head = el('tr', {}, ['model', ...table.metrics].map((name, index) => el('th', { scope: 'col', class: index ? '' : 'name' }, name)));
    const rows = table.rows.map((row) => el('tr', {}, el('th', { scope: 'row', class: 'name' }, row.tokenizer, row.generator ? ` + ${row.generator}` : '', row.note ? el('span', { class: 'variant' }, row.note) : null), cells(row)));
    return el('details', { open: table.data === state.data }, el('summary', {}, table.title, el('span', { class: 'note' }, table.data)),
      el('p', { class: 'note' }, `${table.source}, `, el('a', { class: 'link', href: table.url, rel: 'noreferrer' }, table.url), ...table.fields.map(([key, value]) => `. ${key}: ${value}`)),
      el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': table.title }, el('table', {}, el('thead', {}, head), el('tbody', {}, rows))));
  };
  return el('section', { class: 'published', 'data-published': '' }, el('h2', {}, 'As published'),
    el('p', { class: 'note' }, 'Figures of papers, each under its own protocol. They were not measured here, and are ranked neither with our numbers nor with each other.'), tables.map(one));
}
