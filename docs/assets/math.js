// Renders the formulas of a page with the vendored KaTeX; again after every navigation.
(() => {
  const render = () => {
    renderMathInElement(document.body, { throwOnError: false, delimiters: [
      { left: '\\(', right: '\\)', display: false }, { left: '\\[', right: '\\]', display: true }] })
    for (const formula of document.querySelectorAll('.katex-display')) // a wide one is scrolled by keyboard, too
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0
  }
  if (window.document$) window.document$.subscribe(render)
  else document.addEventListener('DOMContentLoaded', render)
})()
