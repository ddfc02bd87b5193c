// Axes and markers of plots.
const fitWidth = (most) => Math.max(280, Math.min(most, document.documentElement.clientWidth - 40)); // pixels across
function ticks(low, high, count = 5) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}
const short = (value, digits = 3) => {
  if (Math.abs(value) >= 1e5) return value.toLocaleString('en', { notation: 'compact', maximumSignificantDigits: digits });
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(digits - 3) : String(Number(value.toPrecision(digits)));
};
// Labels of ticks: the shortest ones that differ.
function tickLabels(values) {
  const digits = [3, 4, 5, 6].find((count) => new Set(values.map((value) => short(value, count))).size === values.length);
  return values.map((value) => short(value, digits ?? 6));
}

// An axis: the scale from values to pixels, and its ticks; logarithmic where positive values span more than a factor of 30.
function axis(values, from, to) {
  const finite = values.filter(Number.isFinite);
  let [low, high] = [Math.min(...finite), Math.max(...finite)];
  const logarithmic = low > 0 && high / low > 30;
  const [forth, back] = logarithmic ? [Math.log10, (x) => 10 ** x] : [(x) => x, (x) => x];
  [low, high] = [forth(low), forth(high)];
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - margin, high + margin];
  const scale = (value) => from + ((forth(value) - low) / (high - low)) * (to - from);
  const linear = ticks(low, high);
  const decades = (steps) => Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, k) => steps.map((step) => step * 10 ** (Math.floor(low) + k))).flat().filter((value) => forth(value) >= low && forth(value) <= high);
  const shown = !logarithmic ? linear : high - low > 3 ? decades([1]) : decades([1, 2, 5]);
  return { scale, ticks: shown };
}
function frame(width, height, x, y, names) {
  const [left, bottom] = [58, height - 38];
  return [
    tickLabels(x.ticks).map((name, index) => [name, x.ticks[index]]).map(([name, value]) => [svg('line', { class: 'grid', x1: x.scale(value), x2: x.scale(value), y1: 8, y2: bottom }),
      svg('text', { x: x.scale(value), y: bottom + 15, 'text-anchor': 'middle' }, name)]),
    tickLabels(y.ticks).map((name, index) => [name, y.ticks[index]]).map(([name, value]) => [svg('line', { class: 'grid', x1: left, x2: width - 8, y1: y.scale(value), y2: y.scale(value) }),
      svg('text', { x: left - 6, y: y.scale(value) + 4, 'text-anchor': 'end' }, name)]),
    svg('text', { class: 'title', x: (left + width) / 2, y: height - 4, 'text-anchor': 'middle' }, names.x),
    svg('text', { class: 'title', x: -(bottom + 8) / 2, y: 12, transform: 'rotate(-90)', 'text-anchor': 'middle' }, names.y),
  ];
}
const SHAPES = [
  (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x},${y - 1.25 * r}L${x + 1.2 * r},${y + r}H${x - 1.2 * r}z`,
  (x, y, r) => `M${x},${y - 1.35 * r}L${x + 1.35 * r},${y}L${x},${y + 1.35 * r}L${x - 1.35 * r},${y}z`,
];
const shapeOf = (generator) => SHAPES[Math.max(0, generators.indexOf(generator)) % SHAPES.length];
function mark(d, attributes, label, open) {
  const press = (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); open(); } };
  return svg('path', { d, class: 'mark', tabindex: '0', role: 'button', 'aria-label': label, onclick: open, onkeydown: press, ...attributes }, svg('title', {}, label));
}
