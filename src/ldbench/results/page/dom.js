// The only place that creates elements: text of a record becomes text, never markup.
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return node;
}
const byId = (id) => document.getElementById(id);
const pairs = (rows) => el('table', {}, el('tbody', {}, rows.map(([key, value]) => el('tr', {}, el('th', { scope: 'row' }, key), el('td', {}, value)))));
const real = (value) => (value === null || value === undefined ? NaN : value === 'inf' ? Infinity : value === '-inf' ? -Infinity : value);
const unique = (values) => [...new Set(values)];
