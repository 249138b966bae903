"""Conversation templates: what stands around MileBench's prompt, word for word as each model was asked."""

from lookm.errors import check_one_of

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
_LLAVA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_INTERNLM_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)

TEMPLATES = {
    "plain": "{question}",
    "llava_llama_2": f"[INST] <<SYS>>\n{_LLAVA_SYSTEM}\n<</SYS>>\n\n{{question}} [/INST]",
    "vicuna_v1": f"{_VICUNA_SYSTEM} USER: {{question}} ASSISTANT:",
    "internlm2_chat": (
        f"<|im_start|>system\n{_INTERNLM_SYSTEM}<|im_end|><|im_start|>user\n{{question}}<|im_end|>"
        "<|im_start|>assistant\n"
    ),
    "chatml": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "chatml_without_system": "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
}
"""By name; `{question}` stands for the prompt. `llava_llama_2` and `vicuna_v1` are MileBench's for LLaVA-1.5 and
MobileVLM, `internlm2_chat` is InternVL's (the release asks for it), `chatml` is what Qwen's models were tuned with."""

_LATER = {
    "llava_llama_2": " </s><s>[INST] {question} [/INST]",
    "vicuna_v1": "</s>USER: {question} ASSISTANT:",
    "internlm2_chat": "<|im_end|><|im_start|>user\n{question}<|im_end|><|im_start|>assistant\n",
    "chatml": "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    "chatml_without_system": "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
}
"""What follows an answer: the end of that turn and the next question, as each of these formats writes it."""


def later_turn(template: str) -> str:
    """What stands between an answer and the next one: `{question}` and what the conversation puts around it.

    Args:
        template: a conversation's first turn, one of `TEMPLATES` or another text; another one is said again in a new
            line.
    """
    name = next((name for name, text in TEMPLATES.items() if text == template), None)
    return _LATER.get(str(name), f"\n{template}")


def template_text(name: str) -> str:
    """The template of that name.

    Raises:
        LookmError: there is none.
    """
    check_one_of("template", name, TEMPLATES)
    return TEMPLATES[name]
