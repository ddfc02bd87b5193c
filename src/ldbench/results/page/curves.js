// Curves, one panel each, with all models in it: smoothness by perturbation, mixtures by number of components.
const DASHES = [null, '6 3', '2 3', '8 3 2 3'];

function panel(board, curve) {
  const counts = {};
  const series = board.rows.map((row) => ({ row, subject: DATA.subjects[row.subject] })).filter(({ subject }) => visible(subject)).map(({ row, subject }) => ({
    row, subject, style: (counts[subject.tokenizer] = (counts[subject.tokenizer] ?? -1) + 1),
    points: curve.points.filter(([, metric]) => metric in row.cells).map(([x, metric]) => ({ x, metric, cell: row.cells[metric], y: real(row.cells[metric].value) })).filter((p) => Number.isFinite(p.y)),
  })).filter(({ points }) => points.length);
  if (!series.length) return null;
  const [width, height] = [fitWidth(390), 260];
  const all = series.flatMap(({ points }) => points);
  const xs = axis(all.map((p) => p.x), 58, width - 8);
  const ys = axis(all.flatMap((p) => [real(p.cell.low), real(p.cell.high), p.y]), height - 38, 8);
  const drawn = series.map(({ subject, points, style }) => svg('g', { class: color(subject.tokenizer) },
    svg('polyline', { fill: 'none', stroke: 'currentColor', 'stroke-width': 1.8, 'stroke-dasharray': DASHES[style % DASHES.length], points: points.map((p) => `${xs.scale(p.x)},${ys.scale(p.y)}`).join(' ') }),
    points.map((p) => (Number.isFinite(real(p.cell.low)) ? svg('line', { stroke: 'currentColor', opacity: '.5', x1: xs.scale(p.x), x2: xs.scale(p.x), y1: ys.scale(real(p.cell.low)), y2: ys.scale(real(p.cell.high)) }) : null)),
    points.map((p) => mark(SHAPES[0](xs.scale(p.x), ys.scale(p.y), 3.4), { fill: 'currentColor' }, `${subject.label}, ${curve.variable}=${p.x}: ${p.cell.text}`, () => showProvenance(board, subject, p.metric, p.cell)))));
  const key = el('ul', { class: 'key' }, series.map(({ subject, style }) => el('li', {}, svg('svg', { viewBox: '0 0 16 12', class: color(subject.tokenizer), 'aria-hidden': 'true' },
    svg('line', { x1: 0, x2: 16, y1: 6, y2: 6, stroke: 'currentColor', 'stroke-width': 2, 'stroke-dasharray': DASHES[style % DASHES.length] })), subject.label)));
  return el('figure', {}, svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': curve.name }, frame(width, height, xs, ys, { x: curve.variable, y: curve.name }), drawn), key,
    el('figcaption', {}, `${board.job} · ${board.name}`));
}
function curves() {
  const panels = DATA.boards.filter((board) => board.data === state.data).flatMap((board) => board.curves.map((curve) => panel(board, curve))).filter(Boolean);
  return panels.length ? el('section', { 'data-plot': 'curves' }, el('h2', {}, 'Curves'), el('div', { class: 'panels' }, panels)) : null;
}
