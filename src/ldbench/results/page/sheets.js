// Images of measurements: samples and reconstructions.
function sheets() {
  const mine = DATA.sheets.filter((sheet) => visible(DATA.subjects[sheet.subject]));
  if (!mine.length) return null;
  const figure = (sheet) => {
    const subject = DATA.subjects[sheet.subject];
    const what = `${sheet.name.replaceAll('_', ' ')} of ${subject.label}`;
    const open = () => openDialog(what, el('p', { class: 'note' }, `${sheet.job} · ${sheet.protocol}`), el('img', { src: sheet.src, alt: what }));
    return el('figure', {}, el('button', { type: 'button', onclick: open, 'aria-label': `${what}, larger` }, el('img', { src: sheet.src, alt: what, loading: 'lazy' })),
      el('figcaption', {}, dot(subject.tokenizer), ` ${subject.label}`));
  };
  const kinds = unique(mine.map((sheet) => sheet.name)).sort((a, b) => (b === 'samples') - (a === 'samples') || a.localeCompare(b));
  return el('section', { 'data-sheets': '' }, el('h2', {}, 'Sheets'), el('p', { class: 'note' }, 'Of the first seed of each model. Click one to see it larger.'),
    kinds.map((kind) => [el('h3', {}, kind.replaceAll('_', ' ')), el('div', { class: 'sheets' }, mine.filter((sheet) => sheet.name === kind).map(figure))]));
}
