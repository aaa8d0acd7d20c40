"""Hostile replies, one phrase each: what they say, and above all where they say nothing."""

from __future__ import annotations

import pytest

from infimed.evaluation.extraction import extract

OPTIONS = ("Pneumonia", "Pulmonary embolism", "Pneumothorax", "Heart failure")
CHOSEN = {
    "Pneumothorax": (
        "I see no pneumonia, no effusion. There is a visceral pleural line. Pneumothorax.",
        "A or C, but C fits better.",
        "It is either A or C; I lean to C.",
        "If I had to choose, C.",
        "Could be C.",
        "First I thought A. Then I saw the pleural line. C it is.",
        "You suggested pneumonia, but it is pneumothorax.",
        "I cannot be certain, but I favor pneumothorax.",
        "The lung is normal apart from a pneumothorax.",
        "Exclude A. Exclude B. Exclude D.",
        "C is better than A.",
        "C.Pneumothorax",
        "Vorerst: die Antwort ist C",
    ),
    "Pulmonary embolism": (
        "The cause is neither pneumonia nor heart failure but a pulmonary embolism.",
        "[ ] A\n[x] B\n[ ] C\n[ ] D",
        "Correct: B\nIncorrect: A, C, D",
        "| A | no |\n| B | yes |\n| C | no |",
        "Choose D? No. Choose B.",
        "Suspected pulmonary embolism was confirmed.",
        "A is incorrect because ... B is correct. C is incorrect.",
    ),
    "Heart failure": (
        "Pneumonia is unlikely. Heart failure is supported by cardiomegaly.",
        "By exclusion: D.",
        "There is heart failure without pneumonia.",
        "Findings of heart failure. Pneumonia not excluded.",
        "Pneumonia would not explain this. I recommend D.",
        "D is the most appropriate answer among the options, not A.",
    ),
    "Pneumonia": (
        "Pneumonia, or less likely heart failure.",
        "Pneumonia would be my answer.",
        "The lung near the pneumothorax? No. A.",
    ),
}
NOTHING = (
    "Heart failure can cause this, as can pneumonia.",
    "The user thinks it is pneumonia.",
    "B or maybe A",
    "B / A",
    "B (or A)",
    "Many people would say pneumonia.",
    "I disagree that this is pneumonia.",
    "A < C",
    "D is not wrong.",
    "It is too early to say pneumonia.",
    "Pneumothorax needs a chest tube.",
    "Pneumothorax is defined as air there.",
    "Suspected pulmonary embolism was not confirmed.",
    "All signs point away from D.",
    "A) 0.1\nB) 0.7\nC) 0.2",
    "Image 1: C. Image 2: A.",
    "Answer: B and/or C",
    "Answer: B?",
    "Answer: B. Pneumonia",
    "The last option.",
    "2",
    "I. Pneumonia II. Heart failure",
    "pneumonia was considered but rejected",
    "Not only pneumonia but also heart failure.",
    "Rule out pulmonary embolism.",
    "Type A aortic dissection",
    "Category C lung",
    "pneumonia-like",
    "\\boxed{2}",
    "I would need the image to decide between Pneumonia and Pneumothorax.",
    "Check for pneumothorax.",
)
FRACTURE = {
    "yes": (
        "There seems to be a fracture.",
        "Positive for fracture.",
        "It would be wrong to say that there is no fracture.",
        "No dislocation, but a fracture is present.",
        "No problem! There is a fracture.",
        "There is a healed fracture.",
        "Unfortunately, yes.",
        "Yes, without question.",
        '{"answer": true}',
        "I think so.",
    ),
    "no": (
        "Not that I can see.",
        "I see no fracture, but I can't be sure.",
        "Fracture is ruled out.",
        "there isn't one",
        "Sure! Let me look. There is no fracture.",
        "It is clear that there is no fracture.",
        "probably not",
    ),
    None: (
        "The report says there is a fracture.",
        "Someone could say yes.",
        "Yes is not the answer.",
        "No, I can't see an image.",
        "The absence of a fracture can't be assumed.",
        "There should be no fracture.",
        "Yes or no",
        "No. There is a fracture.",
        "I can't say if there is a fracture.",
        "It is not clear whether there is a fracture.",
        "I wouldn't say no.",
        "There is a fracture-like line.",
        "The answer is no longer clear.",
        "By no means.",
        "No doubt.",
        "n",
        "N/A",
    ),
}


@pytest.mark.parametrize("answer", CHOSEN)
def test_hostile_choices_are_read(answer: str) -> None:
    question = "What is the most likely diagnosis?"
    said = {r: extract(r, answer_type="choice", options=OPTIONS, question=question).answer for r in CHOSEN[answer]}
    assert said == dict.fromkeys(CHOSEN[answer], answer)


def test_what_chooses_nothing_is_invalid() -> None:
    said = {reply: extract(reply, answer_type="choice", options=OPTIONS, question="Which?").answer for reply in NOTHING}
    assert said == dict.fromkeys(NOTHING)


@pytest.mark.parametrize("answer", FRACTURE)
def test_hostile_yes_and_no_are_read(answer: str | None) -> None:
    question = "Is there a fracture?"
    said = {reply: extract(reply, answer_type="yesno", question=question).answer for reply in FRACTURE[answer]}
    assert said == dict.fromkeys(FRACTURE[answer], answer)


def test_open_answers_are_cut_to_what_they_add() -> None:
    told = {
        ("What is the diagnosis?", "Findings: opacity.\nImpression: pneumonia"): "pneumonia",
        ("What is the diagnosis?", "I'd say pneumonia."): "pneumonia",
        ("What is the diagnosis?", "Findings are consistent with pneumonia."): "pneumonia",
        ("What is the diagnosis?", '{"diagnosis": "pneumonia", "confidence": 0.9}'): "pneumonia",
        ("What is the diagnosis?", "Pneumonia is the most likely diagnosis."): "Pneumonia",
        ("Which lobe is affected?", "The right middle lobe is affected."): "right middle lobe",
        ("What is the arrow pointing to?", "The arrow is pointing to the aorta."): "the aorta",
        ("In which plane was it taken?", "It was taken in the axial plane."): "the axial",
        ("How many kidneys are seen?", "There are two normal kidneys."): "two",
        ("What was used?", "It was obtained using magnetic resonance imaging (MRI)."): "magnetic resonance imaging",
        ("What is the diagnosis?", "Either pneumonia or tuberculosis."): None,
        ("What is the size?", "I can't measure it."): None,
    }
    assert {key: extract(key[1], answer_type="open", question=key[0]).answer for key in told} == told
