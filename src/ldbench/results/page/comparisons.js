// Saved images of models side by side: rows are images, columns models; a click shows an image larger.
function comparisons() {
  const mine = DATA.comparisons.filter((one) => one.data === state.data);
  const shown = mine.map((one) => [one, one.columns.filter((column) => column.subject === null || visible(DATA.subjects[column.subject]))])
    .filter(([, columns]) => columns.some((column) => column.subject !== null));
  if (!shown.length) return null;
  const picture = (one, column, row, errors) => {
    const what = `${errors ? 'error map' : one.kind.slice(0, -1)} of ${one.rows[row]}: ${column.title}`;
    const name = column.subject === null ? `${column.title} of ${one.rows[row]}` : what;
    const src = (errors ? column.errors : column.images)[row];
    const pair = column.subject === null || column.errors === null ? [src] : [one.columns[one.crop ? 1 : 0].images[row], column.images[row], column.errors[row]];
    const open = () => openDialog(name, el('p', { class: 'note' }, one.name), el('div', { class: 'pair' }, pair.map((image) => el('img', { src: image, alt: '' }))));
    return el('td', {}, el('button', { type: 'button', onclick: open, 'aria-label': `${name}, larger` }, el('img', { src, alt: name, loading: 'lazy' })));
  };
  const title = (column) => el('th', { scope: 'col', colspan: column.errors === null ? 1 : 2 },
    column.subject === null ? null : dot(DATA.subjects[column.subject].tokenizer), ` ${column.title}`, column.note ? el('span', { class: 'variant' }, column.note) : null);
  const table = ([one, columns]) => el('div', { 'data-comparison': one.kind },
    el('h3', {}, `${one.kind}${one.crop ? ', crops' : ''}, ${one.name}`), one.notes.map((note) => el('p', { class: 'note' }, note)),
    one.scale === null ? null : el('p', { class: 'note scale' }, '0 ', el('img', { src: one.scale.src, alt: 'from black to light yellow' }), ` ${one.scale.end} of 255 levels, and more`),
    el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${one.kind} side by side` }, el('table', { class: 'compared' },
      el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'name' }, 'image'), columns.map(title))),
      el('tbody', {}, one.rows.map((name, row) => el('tr', {}, el('th', { scope: 'row', class: 'name' }, name),
        columns.map((column) => [picture(one, column, row, false), column.errors === null ? null : picture(one, column, row, true)])))))));
  return el('section', { 'data-comparisons': '' }, el('h2', {}, 'Side by side'),
    el('p', { class: 'note' }, 'Of one seed of each model whose images are saved. Click an image to see it larger.'), shown.map(table));
}
