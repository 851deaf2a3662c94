"""Chinese words that are blocked unless a tenant's category says otherwise: no embedded model reads Chinese.

Short on purpose. Whoever moderates Chinese seriously configures a guard model that reads it, or adds lists.
"""

from __future__ import annotations

from generation.moderation.policy import WordList
from generation.moderation.types import Category

BUILT_IN: tuple[WordList, ...] = (
    WordList(
        name="zh-insults",
        category=Category.INSULT,
        words=(
            "傻逼", "煞笔", "沙雕货", "脑残", "弱智东西", "贱人", "婊子", "狗娘养的", "王八蛋", "畜生东西", "废物东西",
            "滚你妈", "去死吧你", "你妈死了", "全家死光",
        ),
    ),
    WordList(
        name="zh-profanity",
        category=Category.PROFANITY,
        words=(
            "操你妈", "草泥马", "肏你妈", "日你妈", "他妈的", "妈了个逼", "操你大爷", "干你娘", "狗日的", "卧槽尼玛",
        ),
    ),
    WordList(
        name="zh-sexual",
        category=Category.SEXUAL,
        words=(
            "色情片", "黄色网站", "成人视频", "裸聊", "约炮", "援交", "卖淫", "嫖娼", "口交", "肛交", "轮奸",
            "做爱视频", "无码视频", "自慰视频",
        ),
    ),
    WordList(
        name="zh-illegal",
        category=Category.ILLEGAL,
        words=(
            "网络赌博", "赌博网站", "六合彩特码", "冰毒", "贩卖毒品", "购买毒品", "制造毒品", "吸毒工具", "枪支买卖",
            "买卖枪支", "办假证", "代开发票", "洗钱渠道", "迷奸药", "出售假币",
        ),
    ),
    WordList(name="zh-self-harm", category=Category.SELF_HARM, words=("自杀方法", "怎么自杀", "割腕自杀", "烧炭自杀")),
)  # fmt: skip
