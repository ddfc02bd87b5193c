// Sortable tables: a row for each model, columns in groups by protocol, so that a column holds numbers measured under the same conditions.
const ARROWS = { higher: '↑', lower: '↓' };

function sortRows(subjects, key, tokens) {
  const sort = state.sort[key];
  if (!sort) return subjects;
  const value = (subject) => {
    if (sort.column === 'name') return subject.label;
    const { board, metric } = tokens[sort.column] ?? {};
    const cell = board && rowOf(board, subject)?.cells[metric];
    return cell ? real(cell.value) : NaN;
  };
  const sign = sort.descending ? -1 : 1;
  const values = new Map(subjects.map((subject) => [subject, value(subject)]));
  return [...subjects].sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    if (typeof x === 'string') return sign * x.localeCompare(y);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // missing values come last
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  });
}
function header(text, key, column, descendingFirst, attributes) {
  const sort = state.sort[key];
  const current = sort && sort.column === column;
  const order = current ? { 'aria-sort': sort.descending ? 'descending' : 'ascending' } : {};
  const turn = () => {
    state.sort[key] = { column, descending: current ? !sort.descending : descendingFirst };
    state.scrolled[key] = 0;
    draw();
    document.querySelector(`[data-table="${key}"] [data-column="${column}"]`)?.focus();
  };
  return el('th', { scope: 'col', ...attributes, ...order }, el('button', { type: 'button', 'data-column': column, onclick: turn }, text));
}
function valueCell(board, subject, column, first) {
  const row = rowOf(board, subject);
  const cell = row?.cells[column.metric];
  if (!cell) return el('td', { class: first ? 'first none' : 'none' }, '–');
  const shade = cell.rank === 1 ? 'best' : cell.mark.includes('≈') ? 'alike' : '';
  const rank = cell.rank === null ? '' : `${cell.rank}${cell.mark}`;
  const measured = DATA.subjects[row.subject];
  const open = () => showProvenance(board, measured, column.metric, cell);
  const label = `${column.metric} of ${measured.label}: ${cell.text} ${cell.noise}. Where it comes from`;
  return el('td', { class: `${shade}${first ? ' first' : ''}` }, el('button', { type: 'button', 'aria-label': label, onclick: open },
    el('span', { class: 'value' }, cell.text), el('span', { class: 'rank' }, rank), cell.noise ? el('span', { class: 'noise' }, cell.noise) : null));
}
function nameCell(subject) {
  return el('th', { scope: 'row', class: 'name', title: subject.label }, el('div', {}, dot(subject.tokenizer), subject.tokenizer,
    subject.generator === null ? null : el('span', { class: 'with' }, ` + ${subject.generator}`), subject.variant ? el('span', { class: 'variant' }, subject.variant) : null));
}
function modelTable(key, title, note, subjects, boards) {
  const shown = boards.map((board) => ({ board, columns: columnsOf(board) })).filter(({ columns }) => columns.length);
  const open = shown.filter(({ board }) => !state.hidden.columns.has(`${key}/${boardKey(board)}`));
  const tokens = {};
  open.forEach(({ board, columns }) => columns.forEach((column) => { tokens[`${boardKey(board)}/${column.metric}`] = { board, metric: column.metric }; }));
  if (!(key in state.sort)) {
    const [first] = Object.entries(tokens).filter(([, { board, metric }]) => board.columns.find((column) => column.metric === metric).better);
    state.sort[key] = first ? { column: first[0], descending: first[1].board.columns.find((c) => c.metric === first[1].metric).better === 'higher' } : null;
  }
  const chips = shown.map(({ board }) => {
    const name = `${key}/${boardKey(board)}`;
    return chip(`${board.job} · ${board.name}`, !state.hidden.columns.has(name), () => toggle(state.hidden.columns, name));
  });
  const groups = el('tr', { class: 'groups' }, el('td', { class: 'name' }), open.map(({ board, columns }) => el('th', { colspan: columns.length, scope: 'colgroup', class: 'first' }, `${board.job} · ${board.name}`)));
  const heads = el('tr', {}, header('model', key, 'name', false, { class: 'name' }), open.map(({ board, columns }) => columns.map((column, index) =>
    header(`${column.metric} ${ARROWS[column.better] ?? ''}`.trim(), key, `${boardKey(board)}/${column.metric}`, column.better === 'higher', { class: index ? '' : 'first' }))));
  const sorted = sortRows(subjects.filter(visible), key, tokens);
  const rowBy = (choose) => el('tr', {}, nameCell(choose(null)), open.map(({ board, columns }) => columns.map((column, index) => valueCell(board, choose(board, column), column, !index))));
  const references = [...new Set(open.flatMap(({ board }) => board.references.map((row) => row.label)))].map((label) => el('tr', { class: 'reference' },
    el('th', { scope: 'row', class: 'name' }, label), open.map(({ board, columns }) => columns.map((column, index) => {
      const cell = board.references.find((row) => row.label === label)?.cells[column.metric];
      return el('td', { class: index ? '' : 'first' }, cell ? el('span', { class: 'value' }, cell.text) : '', cell?.noise ? el('span', { class: 'noise' }, cell.noise) : null);
    }))));
  const empty = sorted.length ? null : el('p', { class: 'note', role: 'status' }, 'Nothing fits the filter.');
  const body = el('tbody');
  const scroller = el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${title}, table` },
    el('table', { 'aria-rowcount': sorted.length + 2 }, el('thead', {}, groups, heads), body, el('tfoot', {}, references)));
  fillRows(scroller, body, key, sorted.length, (index) => rowBy(() => sorted[index]));
  if (scroller.classList.contains('long')) body.before(el('tbody', { class: 'widest', 'aria-hidden': 'true' }, rowBy((board, column) => widest(sorted, board, column))));
  return el('section', { 'data-table': key, 'aria-label': title }, el('h2', {}, title), el('p', { class: 'note' }, note), el('div', { class: 'group' }, el('span', {}, 'measured'), chips),
    scroller, empty, open.filter(({ board }) => board.note).map(({ board }) => el('p', { class: 'note' }, `${board.job}: ${board.note}`)));
}
// The model with the widest text in a column: an invisible row of these keeps the widths of columns while rows come and go.
function widest(subjects, board, column) {
  const length = (subject) => {
    if (board === null) return Math.max(subject.label.length - subject.variant.length, subject.variant.length);
    const cell = rowOf(board, subject)?.cells[column.metric];
    return cell ? Math.max(cell.text.length + `${cell.rank ?? ''}${cell.mark}`.length, cell.noise.length) : 0;
  };
  return subjects.reduce((best, subject) => (length(subject) > length(best) ? subject : best));
}
function tables() {
  const mine = DATA.subjects.filter((subject) => subject.data === state.data);
  const others = mine.filter((subject) => subject.samples);
  const [cells, alone] = [mine.filter((subject) => subject.generator !== null), mine.filter((subject) => subject.generator === null && !subject.samples)];
  const found = [];
  if (cells.length) {
    const under = boardsOf(false).filter((board) => cells.some((subject) => rowOf(board, subject)));
    under.filter((board) => board.job !== 'reconstruct').forEach((board) => { if (!state.seen?.has(board)) state.hidden.columns.add(`cells/${boardKey(board)}`); });
    state.seen = new Set([...(state.seen ?? []), ...under]);
    found.push(modelTable('cells', 'Generation', 'Tokenizer and generator together. Columns of other jobs are those of the tokenizer alone, ranked among tokenizers.', cells, [...boardsOf(true), ...under]));
  }
  const below = (subjects) => boardsOf(false).filter((board) => subjects.some((subject) => rowOf(board, subject)));
  if (alone.length) found.push(modelTable('tokenizers', 'Tokenizers', 'What a tokenizer does by itself.', alone, below(alone)));
  if (others.length) found.push(modelTable('samples', 'Samples of others', 'Images that were measured as they are, by job=evaluate.', others, below(others)));
  return found;
}
