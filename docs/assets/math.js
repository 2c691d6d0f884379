// Renders the formulas of a page with the vendored KaTeX; again after every navigation.
(() => {
  const render = () => {
    renderMathInElement(document.body, { throwOnError: false, delimiters: [
      { left: '\\(', right: '\\)', display: false }, { left: '\\[', right: '\\]', display: true }] })
    setTimeout(reachable, 100)
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
