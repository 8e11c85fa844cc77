// Sphinx's own scores; of pages whose titles have the words, those of errors come first.
var Scorer = {
  score: ([page, title, anchor, description, score]) =>
    score >= 15 && page.startsWith("problems/") ? score + 3 : score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
