// Two measurements of each cell against each other, such as rFD and gFD, with the Pareto front: what no other cell beats in both.
const CHOSEN = { x: /^rfi?d/, y: /^gfi?d/ };

function axisChoices(boards) {
  return boards.flatMap((board) => columnsOf(board).filter((column) => column.kind !== 'reference').map((column) => ({ board, column, key: `${boardKey(board)}/${column.metric}` })));
}
function axisSelect(name, choices) {
  const current = choices.find((choice) => choice.key === state.axes[name]) ?? choices.find((choice) => CHOSEN[name].test(choice.column.metric)) ?? choices[0];
  const options = choices.map(({ board, column, key }) => el('option', { value: key, selected: key === current.key }, `${column.metric} · ${board.job} · ${board.name}`));
  const choose = (event) => { state.axes[name] = event.target.value; draw(); byId(`axis-${name}`).focus(); };
  return [current, el('label', {}, `${name === 'x' ? 'across' : 'up'} `, el('select', { id: `axis-${name}`, onchange: choose }, options))];
}
function paretoFront(points, x, y) {
  if (!x.column.better || !y.column.better) return [];
  const cost = (value, column) => (column.better === 'lower' ? value : -value);
  const costs = points.map((point) => [cost(point.x, x.column), cost(point.y, y.column)]);
  const beaten = ([a, b]) => costs.some(([c, d]) => c <= a && d <= b && (c < a || d < b));
  return points.filter((_, index) => !beaten(costs[index])).sort((p, q) => p.x - q.x);
}
function scatter() {
  const choices = axisChoices([...boardsOf(true), ...boardsOf(false)]);
  const cells = DATA.subjects.filter((subject) => subject.generator !== null && visible(subject));
  if (!boardsOf(true).length || !choices.length) return null;
  const [x, selectX] = axisSelect('x', choices);
  const [y, selectY] = axisSelect('y', choices);
  const points = cells.map((subject) => ({ subject, across: rowOf(x.board, subject)?.cells[x.column.metric], up: rowOf(y.board, subject)?.cells[y.column.metric] }))
    .filter(({ across, up }) => across && up)
    .map((point) => ({ ...point, x: real(point.across.value), y: real(point.up.value) })).filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
  const papers = DATA.published.filter((table) => table.data === state.data).flatMap((table) => table.rows.map((row) => ({ table, row, x: row.values[x.column.metric], y: row.values[y.column.metric] })))
    .filter((paper) => paper.x !== undefined && paper.y !== undefined);
  const note = 'The dashed line is the Pareto front: no other cell shown is as good in one and better in the other. Bars are 95 % intervals. Click a point for its provenance.';
  const title = [el('h2', {}, 'Reconstruction against generation'), el('p', { class: 'note' }, note), el('div', { class: 'choices' }, selectX, selectY)];
  if (!points.length) return el('section', { 'data-plot': 'scatter' }, title, el('p', { class: 'note' }, 'No cell shown has both. A cell has its tokenizer\'s numbers where job=reconstruct measured the same artifact.'));
  const [width, height] = [fitWidth(1000), 420];
  const spread = (point, side, axis) => [real(point[side].low), real(point[side].high), point[axis]];
  const xs = axis([...points.flatMap((p) => spread(p, 'across', 'x')), ...papers.map((p) => p.x)], 58, width - 8);
  const ys = axis([...points.flatMap((p) => spread(p, 'up', 'y')), ...papers.map((p) => p.y)], height - 38, 8);
  const front = paretoFront(points, x, y);
  const bars = (p) => [[real(p.across.low), real(p.across.high), 'x'], [real(p.up.low), real(p.up.high), 'y']].filter(([low, high]) => Number.isFinite(low) && Number.isFinite(high)).map(([low, high, axis]) =>
    svg('line', axis === 'x' ? { x1: xs.scale(low), x2: xs.scale(high), y1: ys.scale(p.y), y2: ys.scale(p.y) } : { x1: xs.scale(p.x), x2: xs.scale(p.x), y1: ys.scale(low), y2: ys.scale(high) }));
  const drawn = [
    papers.map((p) => svg('path', { d: SHAPES[0](xs.scale(p.x), ys.scale(p.y), 4), class: 'paper', fill: 'none', stroke: 'currentColor' },
      svg('title', {}, `${p.row.tokenizer} + ${p.row.generator ?? ''} ${p.row.note}, as published: ${p.table.source}`))),
    front.length > 1 ? svg('polyline', { class: 'front', points: front.map((p) => `${xs.scale(p.x)},${ys.scale(p.y)}`).join(' ') }) : null,
    points.map((p) => svg('g', { class: color(p.subject.tokenizer), stroke: 'currentColor', opacity: '.55' }, bars(p))),
    points.map((p) => mark(shapeOf(p.subject.generator)(xs.scale(p.x), ys.scale(p.y), 6), { class: `mark ${color(p.subject.tokenizer)}`, fill: 'currentColor', 'data-front': front.includes(p) ? 'yes' : 'no' },
      `${p.subject.label}: ${x.column.metric} ${p.across.text}, ${y.column.metric} ${p.up.text}`, () => showProvenance(y.board, p.subject, y.column.metric, p.up))),
  ];
  const key = el('ul', { class: 'key' }, unique(points.map((p) => p.subject.tokenizer)).map((name) => el('li', {}, dot(name), ` ${name}`)),
    unique(points.map((p) => p.subject.generator)).map((name) => el('li', {}, svg('svg', { viewBox: '0 0 16 12', 'aria-hidden': 'true' }, svg('path', { d: shapeOf(name)(8, 6, 4.5), fill: 'currentColor' })), name)),
    papers.length ? el('li', {}, '○ as published, not ranked') : null);
  return el('section', { 'data-plot': 'scatter' }, title, el('figure', {}, svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': `${x.column.metric} against ${y.column.metric}` },
    frame(width, height, xs, ys, { x: `${x.column.metric} ${ARROWS[x.column.better] ?? ''}`, y: `${y.column.metric} ${ARROWS[y.column.better] ?? ''}` }), drawn), key));
}
