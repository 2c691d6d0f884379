// Steps through a recorded run of the executable paper. No dependencies. A page holds
//   <div class="player" data-trace="FILE.json" data-listing="ID"></div>  and a listing whose rows carry data-n.
// Keys inside the player: left, right, Home, End, space.
(() => {
  'use strict'
  const SVG = 'http://www.w3.org/2000/svg'

  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag)
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
    node.append(...children)
    return node
  }
  const svg = (tag, attributes = {}, text) => {
    const node = document.createElementNS(SVG, tag)
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
    if (text !== undefined) node.textContent = text
    return node
  }

  // A number in at most six characters or so; the exact one stands in data-value.
  const short = x => {
    if (x === null || x === undefined) return '·'
    if (typeof x !== 'number') return String(x)
    const size = Math.abs(x)
    if (Number.isInteger(x) && size < 1e6) return String(x)
    if (size >= 1e5 || size < 1e-3) return x.toExponential(0)
    return String(+x.toPrecision(3))
  }
  const brief = value => Array.isArray(value)
    ? '[' + value.slice(0, 8).map(brief).join(', ') + (value.length > 8 ? ', …' : '') + ']' : short(value)

  // ---- values as heat strips ---------------------------------------------------------------------------------

  const largest = value => Array.isArray(value) ? Math.max(0, ...value.map(largest)) : Math.abs(value || 0)

  const cell = (x, top, before, hot) => {
    const span = el('span', { class: 'cell', 'data-value': JSON.stringify(x), title: String(x === null ? 'nothing' : x) }, short(x))
    if (x !== null && top > 0) {
      span.style.setProperty('--w', (Math.abs(x) / top).toFixed(3))
      span.classList.add(x < 0 ? 'neg' : 'pos')
    }
    if (before !== undefined && before !== x) span.classList.add('new')
    if (hot) span.classList.add('hot')
    return span
  }

  const strip = (value, before, hot = []) => {
    const top = largest(value)
    if (!Array.isArray(value)) return el('span', { class: 'strip' }, cell(value, 0, before))
    if (!Array.isArray(value[0])) {
      const old = Array.isArray(before) && before.length === value.length ? before : []
      return el('span', { class: 'strip' }, ...value.map((x, i) => cell(x, top, old[i], hot.includes(i))))
    }
    return el('span', { class: 'matrix' }, ...value.map((row, r) =>
      el('span', { class: 'strip' }, ...row.map((x, i) => cell(x, top, before && before[r] && before[r].length === row.length ? before[r][i] : undefined)))))
  }

  // ---- the window as a ring ----------------------------------------------------------------------------------

  const ring = (now, before) => {
    const m = now.rows.length, cx = 150, cy = 120, far = 108, near = 34
    const words = now.rows.map((row, r) => `row ${r}: ` + row.map(([i, x]) => `${i} ${short(x)}`).join(', '))
    const picture = svg('svg', { viewBox: '0 0 300 240', class: 'ring', role: 'img',
      'aria-label': `Window. ${words.join('; ')}. Row ${now.next} is written next.` })
    const at = (angle, radius) => [cx + radius * Math.sin(angle), cy - radius * Math.cos(angle)]
    now.rows.forEach((row, r) => {
      const a = 2 * Math.PI * r / m, b = 2 * Math.PI * (r + 1) / m - 1e-3, wide = b - a > Math.PI ? 1 : 0
      const [p, q, s, t] = [at(a, far), at(b, far), at(b, near), at(a, near)]
      const fresh = before && JSON.stringify(before.rows[r]) !== JSON.stringify(row)
      const empty = row.every(([, x]) => x === 0)
      picture.append(svg('path', { class: `sector${fresh ? ' new' : ''}${empty ? ' empty' : ''}`,
        d: `M${p} A${far} ${far} 0 ${wide} 1 ${q} L${s} A${near} ${near} 0 ${wide} 0 ${t} Z` }))
      const [x, y] = at((a + b) / 2, (near + far) / 2 + 2)
      const lines = [`row ${r}`, ...row.map(([i, v]) => `${i}: ${short(v)}`)]
      lines.forEach((line, n) => picture.append(svg('text', {
        x, y: y + (n - (lines.length - 1) / 2) * 15 + 4, class: n ? 'entry' : 'name' }, line)))
    })
    const angle = 2 * Math.PI * (now.next + 0.5) / m, [x, y] = at(angle, near - 6)
    picture.append(svg('line', { x1: cx, y1: cy, x2: x, y2: y, class: 'hand' }), svg('circle', { cx: x, cy: y, r: 5, class: 'tip' }),
      svg('text', { x: cx, y: cy + (Math.cos(angle) < 0 ? -12 : 20), class: 'name' }, 'next'))
    return picture
  }

  // ---- lanes, memory and the tree: rows of cells with links between them --------------------------------------

  const W = 39, H = 24, GAP = 8, LEFT = 54
  const grid = (rows, links, label) => {
    const columns = Math.max(...rows.map(row => row.cells.length))
    let y = 4
    rows.forEach(row => { y += row.space || 0; row.y = y; y += H + GAP })
    const width = LEFT + columns * W + 4
    const picture = svg('svg', { viewBox: `0 0 ${width} ${y}`, width, height: y, class: 'lanes', role: 'img', 'aria-label': label })
    const middle = column => LEFT + column * W + (W - 4) / 2
    for (const [a, i, b, j] of links)
      if (rows[a] && rows[b]) picture.append(svg('line', { x1: middle(i), y1: rows[a].y + H, x2: middle(j), y2: rows[b].y, class: 'link' }))
    for (const row of rows) {
      picture.append(svg('text', { x: LEFT - 8, y: row.y + 17, class: 'label' }, row.label))
      row.cells.forEach((value, c) => {
        if (value === undefined) return
        const state = (row.hot || []).includes(c) ? ' hot' : (row.off || (() => false))(c) ? ' off' : ''
        picture.append(svg('rect', { x: LEFT + c * W, y: row.y, width: W - 4, height: H, rx: 3, class: 'box' + state }),
          svg('text', { x: middle(c), y: row.y + 17, class: 'value' + state }, short(value)))
      })
    }
    return picture
  }

  const kernel = (key, event, vars) => {
    if (event.tree) {
      const levels = event.tree, T = levels[0].length, links = []
      const rows = levels.slice(0, event.at + 1).map((mem, n) => ({ label: n ? `level ${n}` : 'mem', space: n ? 18 : 0,
        cells: mem, hot: n === event.at ? [...Array(T >> n).keys()] : [], off: c => n > 0 && c >= T >> n }))
      for (let n = 1; n <= event.at; n++) for (let c = 0; c < T >> n; c++) links.push([n - 1, c, n, c], [n - 1, c + (T >> n), n, c])
      return grid(rows, links, `Tree reduction, level ${event.at}: ` + brief(levels[event.at]))
    }
    const { T, on, at } = event.lanes
    if (!T) return null
    const n = event.l, first = key === '2', lanes = [...Array(T).keys()], working = on || []
    const rows = [{ label: 'lane', cells: lanes, hot: working, off: c => on && !working.includes(c) }]
    const spread = values => lanes.map(lane => values[working.indexOf(lane)])
    const show = (label, values) => Array.isArray(values) && values.length === working.length && rows.push({ label, cells: spread(values) })
    if (first && vars.sigma) rows.push({ label: 'sigma', cells: vars.sigma, hot: n === 11 ? working : [] })
    if (first && n >= 8 && n <= 11) { show('j', vars.j); n > 8 && show('I', vars.i); n > 9 && show('V', vars.v) }
    if (!first && n >= 17 && n <= 20) { show('col', vars.col); n > 17 && show('I', vars.index); n > 18 && show('V', vars.v) }
    if (!first && n >= 25) show('j', vars.j)
    const links = [], from = rows.length - 1
    const memory = (label, cells, hot) => rows.push({ label, cells, hot, space: 16 }) - 1
    if (first && n >= 9 && n <= 11) {
      const g = memory('g', vars.g, at.g || vars.i)
      working.forEach((lane, w) => links.push([from, lane, g, (at.g || vars.i)[w]]))
    } else if (vars.mem) {
      const mem = memory('mem', vars.mem, at.mem || (first && n === 13 ? lanes : []))
      if (first && n === 13) lanes.forEach(lane => links.push([from, lane, mem, lane]))
      else if (!first && at.mem) working.forEach((lane, w) => links.push([from, lane, mem, at.mem[w]]))
    }
    if (vars.omega && (n === 16 || n >= 25)) {
      const omega = memory('omega', vars.omega, at.omega || [])
      ;(at.omega || []).forEach((address, w) => links.push([omega - 1, at.mem[w], omega, address]))
    }
    return grid(rows, links, `${T} lanes; ` + (on ? `lanes ${working.join(', ')} work` : 'all lanes do the same') +
      (at.mem ? `; shared memory ${at.mem.join(', ')}` : '') + (at.g ? `; reads g at ${at.g.join(', ')}` : ''))
  }

  // ---- the player --------------------------------------------------------------------------------------------

  const make = async root => {
    const response = await fetch(root.dataset.trace)
    if (!response.ok) { root.textContent = `The recording ${root.dataset.trace} could not be read.`; return }
    const data = await response.json(), listing = document.getElementById(root.dataset.listing)
    let number = 0, step = 0, timer = 0

    const button = (text, label) => el('button', { type: 'button', 'aria-label': label, title: label }, text)
    const id = root.dataset.listing
    const choice = el('select', { id: `${id}-input` }, ...data.cases.map((c, n) => el('option', { value: n }, c.title)))
    const about = el('p', { class: 'about' })
    const [first, back, play, forth, last] = [button('|◀', 'first step'), button('◀', 'step back'), button('Play', 'play'), button('▶', 'step forward'), button('▶|', 'last step')]
    play.classList.add('play')
    const slider = el('input', { type: 'range', min: 0, value: 0, 'aria-label': 'step' })
    const status = el('p', { class: 'status', role: 'status', 'aria-live': 'polite' })
    const drawing = el('div', { class: 'drawing', tabindex: 0 }), values = el('div', { class: 'values' })
    root.replaceChildren(
      el('div', { class: 'choice' }, el('label', { for: `${id}-input` }, 'Input'), choice), about,
      el('div', { class: 'bar' }, first, back, play, forth, last, slider), status,
      el('div', { class: 'stage' }, listing, el('div', { class: 'state' }, drawing, values)),
      el('p', { class: 'keys' }, 'Keys: ← → step, Home and End jump, space plays.'))

    const named = event => Object.assign({}, ...event.f.map(([, vars]) => vars))
    const touched = (event, name) => event.c.some(path => path === name || path.startsWith(name + '.') || name.startsWith(path + '.') || name.startsWith(path + '['))

    const show = next => {
      const { events, pool } = data.cases[number]
      step = Math.min(events.length - 1, Math.max(0, next))
      const event = events[step], before = step ? events[step - 1] : null
      slider.max = events.length - 1
      slider.value = step
      slider.setAttribute('aria-valuetext', `step ${step + 1} of ${events.length}, line ${event.l}`)
      root.dataset.step = step
      listing.querySelectorAll('tr[data-n]').forEach(row => {
        const on = +row.dataset.n === event.l
        row.classList.toggle('on', on)
        on ? row.setAttribute('aria-current', 'step') : row.removeAttribute('aria-current')
        if (!on) return
        const box = listing.getBoundingClientRect(), place = row.getBoundingClientRect()
        if (place.top < box.top + 40) listing.scrollTop -= box.top + 40 - place.top
        else if (place.bottom > box.bottom) listing.scrollTop += place.bottom - box.bottom
      })
      const flat = Object.fromEntries(Object.entries(named(event)).map(([name, n]) => [name, pool[n]]))
      const old = before ? Object.fromEntries(Object.entries(named(before)).map(([name, n]) => [name, pool[n]])) : {}
      const picture = event.ring !== undefined
        ? ring(pool[event.ring], before && before.ring !== undefined ? pool[before.ring] : null)
        : event.tree || event.lanes
          ? kernel(data.key, event.tree ? { ...event, tree: event.tree.map(n => pool[n]) } : event, flat) : null
      drawing.replaceChildren(...(picture ? [picture] : []))
      const top = event.f.length - 1, changed = []
      values.replaceChildren(...[...event.f].reverse().map(([name, vars], depth) => {
        const numbers = el('div', { class: 'numbers' }), rows = el('div', { class: 'rows' })
        for (const [variable, n] of Object.entries(vars)) {
          if (depth && event.f[top][1][variable] === n) continue // the function inside shows the same
          const value = pool[n], on = depth === 0 && touched(event, variable)
          if (on) changed.push(`${variable} = ${brief(value)}`)
          const label = variable.split('.').flatMap((part, n) => n ? [el('wbr'), `.${part}`] : [part])
          const mark = el('div', { class: `var${on ? ' changed' : ''}`, 'data-name': variable }, el('code', {}, ...label), strip(value, on ? old[variable] : undefined))
          ;(Array.isArray(value) ? rows : numbers).append(mark)
        }
        if (!depth && event.r !== undefined) {
          changed.push(`returns ${brief(pool[event.r])}`)
          rows.append(el('div', { class: 'var changed' }, el('span', {}, 'returns'), strip(pool[event.r])))
        }
        if (!rows.firstChild && !numbers.firstChild) return ''
        return el('section', { class: depth ? 'frame outer' : 'frame', 'aria-label': name ? `variables of ${name}` : 'input' },
          el('p', { class: 'function' }, name ? top ? `in ${name}()` : '' : 'input'), rows, numbers)
      }))
      status.textContent = `Step ${step + 1} of ${events.length}, line ${event.l}` +
        (event.tree ? `, level ${event.at} of the tree` : '') + (changed.length ? `: ${changed.join('; ')}` : '')
    }
    const stop = () => {
      clearInterval(timer)
      timer = 0
      play.textContent = 'Play'
      play.setAttribute('aria-label', 'play')
      status.setAttribute('aria-live', 'polite')
    }
    const toggle = () => {
      if (timer) return stop()
      const end = () => step >= data.cases[number].events.length - 1
      if (end()) show(0)
      play.textContent = 'Pause'
      play.setAttribute('aria-label', 'pause')
      status.setAttribute('aria-live', 'off')
      timer = setInterval(() => { if (!root.isConnected || end()) return stop(); show(step + 1) }, 700)
    }
    const go = next => { stop(); show(next) }
    first.onclick = () => go(0)
    back.onclick = () => go(step - 1)
    play.onclick = toggle
    forth.onclick = () => go(step + 1)
    last.onclick = () => go(Infinity)
    slider.oninput = () => go(+slider.value)
    choice.onchange = () => { number = +choice.value; about.textContent = data.cases[number].text; go(0) }
    root.onkeydown = event => {
      if (event.target === choice || event.ctrlKey || event.metaKey || event.altKey) return
      const target = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: Infinity }[event.key]
      if (target !== undefined) go(target)
      else if (event.key === ' ' && event.target.tagName !== 'BUTTON') toggle()
      else return
      event.preventDefault()
    }
    root.tabIndex = 0
    root.setAttribute('role', 'group')
    root.setAttribute('aria-label', 'Step-through player')
    about.textContent = data.cases[0].text
    listing.classList.add('played')
    show(0)
    root.dataset.ready = ''
    const wanted = location.hash && document.getElementById(location.hash.slice(1))
    if (wanted && listing.contains(wanted)) wanted.scrollIntoView({ block: 'center' })
  }

  const start = () => document.querySelectorAll('.player:not([data-ready])').forEach(root => make(root))
  if (window.document$) window.document$.subscribe(start)
  else document.addEventListener('DOMContentLoaded', start)
})()
