// Renders the formulas of a page with the vendored KaTeX; again after every navigation.
(() => {
  const render = () => {
    renderMathInElement(document.body, { throwOnError: false, delimiters: [
      { left: '\\(', right: '\\)', display: false }, { left: '\\[', right: '\\]', display: true }] })
    document.querySelectorAll('span.arithmatex').forEach(kept)
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
  // What is too wide scrolls by itself, and must be reached by keyboard to be scrolled.
  const reachable = () => {
    for (const box of document.querySelectorAll('.katex-display, .md-typeset__scrollwrap'))
      box.scrollWidth > box.clientWidth ? box.tabIndex = 0 : box.removeAttribute('tabindex')
  }
  window.addEventListener('resize', reachable)
  if (window.document$) window.document$.subscribe(render)
  else document.addEventListener('DOMContentLoaded', render)
})()
