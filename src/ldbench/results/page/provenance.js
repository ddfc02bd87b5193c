// The provenance of a number: its protocol and records, which are read when the first number is asked for.
let read = null;
const provenance = () => { read ??= JSON.parse(byId('provenance').textContent); return read; };
const configOf = (record) => Object.fromEntries(Object.entries(record.config).map(([key, part]) => [key, provenance().parts[part]]));
function openDialog(title, ...content) {
  const dialog = byId('dialog');
  const close = el('button', { type: 'button', class: 'close', 'aria-label': 'Close', onclick: () => dialog.close() }, '×');
  dialog.replaceChildren(close, el('h2', { id: 'dialog-title' }, title), ...content);
  dialog.showModal();
  dialog.scrollTop = 0;
}
function standing(cell, board, metric) {
  if (cell.rank === null) return null;
  const among = board.rows.filter((row) => metric in row.cells).length;
  const noise = { '≈': ', within noise of the best', '?': ', noise unknown (one seed and no interval)', '': cell.rank === 1 ? '' : ', beyond noise of the best' }[cell.mark.replace('¹', '')];
  const given = { weights: ' for the trained weights, since one of the two has one seed', 'generator seeds': ' over generator seeds, for the trained tokenizers' }[cell.comparedOver] ?? '';
  return el('p', { class: 'note' }, `Rank ${cell.rank} of ${among} measured under the same conditions${noise}${noise ? given : ''}.`);
}
function showProvenance(board, subject, metric, cell) {
  const place = board.places.get(subject.index) ?? board.places.get(subject.standsOn);
  const estimates = provenance().estimates[board.index][place][metric];
  const records = estimates.map(([record]) => provenance().records[record]);
  const seeds = (record) => Object.entries(record.seeds).map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(' ');
  const head = el('tr', {}, ['record', 'value', '95 % interval', 'seeds', 'artifacts', 'made'].map((name) => el('th', { scope: 'col' }, name)));
  const body = estimates.map(([, value, interval], index) => el('tr', {},
    el('td', {}, records[index].name), el('td', {}, value), el('td', {}, interval ?? '–'), el('td', {}, seeds(records[index])),
    el('td', {}, Object.values(records[index].artifacts).join(' ')), el('td', {}, records[index].created.slice(0, 10))));
  const low = real(cell.low);
  const mean = cell.seeds > 1 && Number.isFinite(low) ? ` 95 % interval of the mean over seeds: ${low.toPrecision(4)} to ${real(cell.high).toPrecision(4)}.` : '';
  openDialog(`${metric} of ${subject.label}`,
    el('p', { class: 'big' }, cell.text, el('small', {}, cell.noise)),
    standing(cell, board, metric) ?? '',
    mean ? el('p', { class: 'note' }, mean) : '',
    el('h3', {}, records.length > 1 ? 'Records' : 'Record'), el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, head), el('tbody', {}, body))),
    el('h3', {}, `Protocol ${board.name}`), pairs([['job', board.job], ['data set', board.data], ...board.fields, ...board.settings.map(([key, value]) => [`setting ${key}`, value])]),
    el('details', {}, el('summary', {}, 'Environment'), pairs(provenance().parts[records[0].environment])),
    ...records.map((record) => el('details', {}, el('summary', {}, `Config of ${record.name}`), el('pre', { tabindex: '0' }, JSON.stringify(configOf(record), null, 1)))));
}
