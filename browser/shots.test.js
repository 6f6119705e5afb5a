import { story, openSale } from '/work/wt-page/browser/stage.js';
for (const [mode, options] of Object.entries({ light: {}, dark: { colorScheme: 'dark' }, phone: { viewport: { width: 360, height: 780 }, deviceScaleFactor: 2 } })) {
  story(mode, async (visit) => {
    const up = await openSale({ startsIn: '3h', endsIn: '5h', units: 1000 });
    let b = await visit(up, options); await b.seesButton('Not open yet', { open: false }); await b.pictures(`${mode}-upcoming`);
    const act = await openSale({ units: 10 });
    await act.sellTo('x'); await act.sellTo('y'); await act.sellTo('z');
    b = await visit(act, options); await b.seesButton('Buy one', { open: true }); await b.pictures(`${mode}-active`);
    await b.buysAs('ada@example.com'); await b.receives(); await b.pictures(`${mode}-bought`);
    await act.pause(); const b2 = await visit(act, options); await b2.sees('Paused'); await b2.pictures(`${mode}-paused`);
    await act.end(); await b2.sees('The sale has ended'); await b2.pictures(`${mode}-ended`);
    const so = await openSale({ units: 1 }); await so.sellTo('x');
    const b3 = await visit(so, options); await b3.seesButton('Sold out', { open: false });  await b3.enters('bob'); await b3.pictures(`${mode}-soldout`);
    const b4 = await visit({ id: 'nope' }, options); await b4.sees('There is no such sale'); await b4.pictures(`${mode}-nosale`);
  });
}
