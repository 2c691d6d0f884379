// Renders the formulas of a page with the vendored KaTeX; again after every navigation.
(() => {
  const render = () => {
    renderMathInElement(document.body, { throwOnError: false, delimiters: [
      { left: '\\(', right: '\\)', display: false }, { left: '\\[', right: '\\]', display: true }] })
    document.querySelectorAll('span.arithmatex').forEach(kept)
    document.querySelectorAll('.md-typeset :not(pre) > code').forEach(whole)
    document.querySelectorAll('.md-typeset table:not([class])').forEach(stacked)
    setTimeout(reachable, 100)
  }
  // A full stop or bracket stays on the line of the short formula before it.
  const kept = formula => {
    const after = formula.nextSibling, mark = after && after.nodeType === 3 && after.data.match(/^[.,:;?!)\]]+/)
    if (!mark || formula.offsetWidth > 120) return
    const together = document.createElement('span')
    together.style.whiteSpace = 'nowrap'
    formula.replaceWith(together)
    together.append(formula, mark[0])
    after.data = after.data.slice(mark[0].length)
  }
  // A short option such as --workers stays on one line.
  const whole = code => {
    const text = code.textContent
    if (text.length < 19 && text.includes('-')) code.style.whiteSpace = 'nowrap'
  }
  // A table with two columns of sentences is stacked on a phone: each cell says which column it is of.
  const stacked = table => {
    const heads = [...table.querySelectorAll('thead th')].map(head => head.textContent), rows = [...table.tBodies[0]?.rows || []]
    const wordy = heads.filter((_, n) => rows.some(row => row.cells[n].textContent.length > 45))
    if (heads.length < 4 || wordy.length < 2 || table.caption) return
    table.dataset.stacked = ''
    for (const row of rows) [...row.cells].forEach((cell, n) => { if (heads[n]) cell.dataset.label = heads[n] })
  }
  // What is too wide scrolls by itself, and must be reached by keyboard to be scrolled.
  const reachable = () => {
    for (const box of document.querySelectorAll('.katex-display, .md-typeset__scrollwrap'))
      box.scrollWidth > box.clientWidth ? box.tabIndex = 0 : box.removeAttribute('tabindex')
  }
  window.addEventListener('resize', reachable)
  if (window.document$) window.document$.subscribe(render)
  else document.addEventListener('DOMContentLoaded', render)
})()
