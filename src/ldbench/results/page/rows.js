// Rows of a long table: only those near the visible ones are in the document, so that thousands cost what dozens cost.
const MOST_ROWS = 60; // a table with more scrolls by itself
const ROW_HEIGHT = 52; // pixels, of each row of such a table
const BEYOND = 8; // rows above and below the visible ones

// Fills the body of a table in a scroller with `count` rows; `build` makes one. `key`: of its place in state.scrolled.
function fillRows(scroller, body, key, count, build) {
  if (count <= MOST_ROWS) {
    body.append(...Array.from({ length: count }, (_, index) => build(index)));
    return;
  }
  const spacer = () => el('tr', { class: 'spacer', 'aria-hidden': 'true' }, el('td', { colspan: 999 }));
  const [above, below, shown] = [spacer(), spacer(), new Map()];
  const update = () => {
    const height = scroller.clientHeight || window.innerHeight; // it has none before it is in the document
    const top = scroller.isConnected ? scroller.scrollTop : state.scrolled[key] ?? 0;
    const first = Math.max(0, Math.min(count, Math.floor(top / ROW_HEIGHT)) - BEYOND);
    const last = Math.min(count, Math.ceil((top + height) / ROW_HEIGHT) + BEYOND);
    for (const [index, row] of shown) if (index < first || index >= last) { row.remove(); shown.delete(index); }
    let next = below;
    for (let index = last - 1; index >= first; index -= 1) {
      if (!shown.has(index)) {
        const row = build(index);
        row.setAttribute('aria-rowindex', index + 3); // after two rows of headings
        shown.set(index, row);
        body.insertBefore(row, next);
      }
      next = shown.get(index);
    }
    above.firstChild.style.height = `${first * ROW_HEIGHT}px`;
    below.firstChild.style.height = `${(count - last) * ROW_HEIGHT}px`;
  };
  scroller.classList.add('long');
  scroller.dataset.key = key;
  scroller.addEventListener('scroll', () => { state.scrolled[key] = scroller.scrollTop; update(); }, { passive: true });
  body.append(above, below);
  update();
}
