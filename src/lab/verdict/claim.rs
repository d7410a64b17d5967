//! What becomes of a claim that others have made about arms.

use super::Verdict;
use crate::run::suite::Relation;

/// What a study says about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every part of it is what the study found.
    Holds,
    /// A part of it is not what the study found.
    DoesNotHold,
    /// The study does not contradict it, and does not show all of it.
    NotClear,
    /// The study does not contradict it, and has no verdict on a part of it: too few runs, or a refusal of the audit.
    NoVerdict,
}

impl Standing {
    /// As text.
    pub fn words(self) -> &'static str {
        match self {
            Standing::Holds => "holds",
            Standing::DoesNotHold => "does not hold",
            Standing::NotClear => "not clear",
            Standing::NoVerdict => "no verdict",
        }
    }
}

/// What becomes of a claim about arms, each with its verdict, if it has one, and with what is said about it.
///
/// One part that is contradicted is enough: the claim does not hold. A real difference below the margin supports "better" or "worse" as well
/// as "no different": the claims do not say how large a difference is.
pub fn claim_standing(parts: impl IntoIterator<Item = (Option<Verdict>, Relation)>) -> Standing {
    let mut whole = Standing::Holds;
    for (verdict, said) in parts {
        whole = match (part(verdict, said), whole) {
            (Standing::DoesNotHold, _) | (_, Standing::DoesNotHold) => Standing::DoesNotHold,
            (Standing::NoVerdict, _) | (_, Standing::NoVerdict) => Standing::NoVerdict,
            (Standing::NotClear, _) | (_, Standing::NotClear) => Standing::NotClear,
            (Standing::Holds, Standing::Holds) => Standing::Holds,
        };
    }
    whole
}

fn part(verdict: Option<Verdict>, said: Relation) -> Standing {
    let Some(verdict) = verdict.filter(|verdict| *verdict != Verdict::Unknown) else { return Standing::NoVerdict };
    let holds = match (verdict, said) {
        (Verdict::NotClear | Verdict::Unknown, _) => return Standing::NotClear,
        (Verdict::Better | Verdict::BetterAndEquivalent, Relation::Better) => true,
        (Verdict::Worse | Verdict::WorseAndEquivalent, Relation::Worse) => true,
        (Verdict::Equivalent | Verdict::BetterAndEquivalent | Verdict::WorseAndEquivalent | Verdict::Identical, said) => {
            said == Relation::Equal
        }
        (Verdict::Better | Verdict::Worse, _) => false,
    };
    if holds { Standing::Holds } else { Standing::DoesNotHold }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_stands_by_its_weakest_part() {
        use Relation::{Better as SaidBetter, Equal, Worse as SaidWorse};
        use Verdict::*;
        let of = |parts: &[(Verdict, Relation)]| claim_standing(parts.iter().map(|(verdict, said)| (Some(*verdict), *said))).words();
        assert_eq!(of(&[(Better, SaidBetter), (Worse, SaidWorse), (Equivalent, Equal)]), "holds");
        assert_eq!(of(&[(BetterAndEquivalent, SaidBetter), (BetterAndEquivalent, Equal)]), "holds");
        assert_eq!(of(&[(Better, SaidBetter), (NotClear, SaidWorse)]), "not clear");
        assert_eq!(of(&[(Better, SaidBetter), (NotClear, SaidWorse), (Worse, SaidBetter)]), "does not hold");
        for contradicted in [(Equivalent, SaidBetter), (Identical, SaidBetter), (WorseAndEquivalent, SaidBetter), (Better, Equal)] {
            assert_eq!(of(&[contradicted]), "does not hold", "{contradicted:?}");
        }
        assert_eq!(claim_standing([(None, SaidBetter)]), Standing::NoVerdict);
        assert_eq!(of(&[(Unknown, SaidBetter), (NotClear, Equal)]), "no verdict");
    }
}
