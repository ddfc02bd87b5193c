// What is shown, and the color of each tokenizer.
const DATA = JSON.parse(byId('data').textContent);
DATA.subjects.forEach((subject, index) => { subject.index = index; subject.searched = `${subject.label} ${subject.data}`.toLowerCase(); });
DATA.boards.forEach((board, index) => { board.index = index; board.places = new Map(board.rows.map((row, place) => [row.subject, place])); });
const tokenizers = unique(DATA.subjects.map((subject) => subject.tokenizer)).sort();
const generators = unique(DATA.subjects.map((subject) => subject.generator).filter((name) => name !== null)).sort();
const datasets = unique(DATA.boards.map((board) => board.data)).sort();
const color = (tokenizer) => (tokenizers.includes(tokenizer) ? `c${tokenizers.indexOf(tokenizer) % 8}` : 'paper');
const state = {
  data: datasets[0] ?? null,
  text: '',
  hidden: { tokenizers: new Set(), generators: new Set(), columns: new Set() },
  references: false,
  sort: {},
  axes: {},
  scrolled: {}, // rows that a long table has been scrolled over, in pixels
  open: new Set(), // lists of many chips
};
const dot = (tokenizer) => el('span', { class: `dot ${color(tokenizer)}`, 'aria-hidden': 'true' });
const boardsOf = (generates) => DATA.boards.filter((board) => board.data === state.data && board.generates === generates);
const boardKey = (board) => String(board.index);

function visible(subject) {
  if (subject.data !== state.data || state.hidden.tokenizers.has(subject.tokenizer)) return false;
  if (subject.generator !== null && state.hidden.generators.has(subject.generator)) return false;
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => subject.searched.includes(word));
}
function columnsOf(board) {
  return board.columns.filter((column) => state.references || column.kind !== 'reference');
}
// A model's row in a leaderboard: its own, or that of its tokenizer.
function rowOf(board, subject) {
  return board.rows[board.places.get(subject.index)] ?? board.rows[board.places.get(subject.standsOn)];
}
